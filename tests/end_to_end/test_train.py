"""`wbc-jax train` as a user runs it: what it leaves, how it resumes, what it refuses."""

from __future__ import annotations

import csv
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest

from wbc_jax.runtime.checkpoints import load_variables

from .conftest import SMALL, Command

RUN = (*SMALL, "--train.epochs", "3", "--checkpoint.every-steps", "2")


def test_run_directory_holds_all_that_was_promised(trained: tuple[Path, str]) -> None:
    path, output = trained
    for name in (
        "config.json",
        "provenance.json",
        "split.json",
        "card.json",
        "metrics.jsonl",
        "metrics.json",
    ):
        assert (path / name).stat().st_size > 0, name
    metrics = json.loads((path / "metrics.json").read_text())
    assert 0 <= metrics["test.accuracy"] <= 1
    assert metrics["test"]["hits"] == round(metrics["test.accuracy"] * metrics["test"]["count"])
    for figure in ("confusion_test.png", "roc_test.png", "training.png"):
        assert (path / "figures" / figure).stat().st_size > 4000
    rows = list(csv.DictReader((path / "predictions" / "test.csv").read_text().splitlines()))
    assert len(rows) == metrics["test"]["count"]
    hits = sum(row["label"] == row["predicted"] for row in rows)
    assert hits == metrics["test"]["hits"]
    for part in ("accuracy (OA)", "goodput", str(path), "next: wbc-jax"):
        assert part in output


def test_loss_falls(trained: tuple[Path, str]) -> None:
    rows = [json.loads(line) for line in (trained[0] / "metrics.jsonl").read_text().splitlines()]
    losses = [row["epoch.loss"] for row in rows if "epoch.loss" in row]
    assert len(losses) == 3
    assert losses[-1] < losses[0]


def test_each_step_is_traced_once_in_a_whole_run(trained: tuple[Path, str]) -> None:
    timings = json.loads((trained[0] / "timings.json").read_text())
    assert timings["traces"] == {"train": 1, "evaluate": 1}


def test_start_up_is_reported(trained: tuple[Path, str]) -> None:
    path, output = trained
    seconds = json.loads((path / "timings.json").read_text())["startup"]
    phases = ("import", "data", "build", "compile", "first_step")
    assert seconds["to_first_step"] == pytest.approx(sum(seconds[name] for name in phases))
    assert max(seconds["compile_train"], seconds["compile_evaluate"]) <= seconds["compile"]
    assert f"start-up {seconds['to_first_step']:.1f} s from the command" in output


def test_finished_run_says_so_and_does_nothing(trained: tuple[Path, str], finish: Callable[..., str]) -> None:
    path, _ = trained
    before = (path / "metrics.json").stat().st_mtime_ns
    assert "is finished" in finish("train", "--run-dir", path)
    assert (path / "metrics.json").stat().st_mtime_ns == before


def test_other_config_is_refused_with_the_differences(
    trained: tuple[Path, str], finish: Callable[..., str]
) -> None:
    output = finish(
        "train", "--run-dir", trained[0], "--optim.learning-rate", "0.5", "--train.seed", "3", code=2
    )
    assert "optim.learning_rate: 0.002 -> 0.5" in output
    assert "train.seed: 0 -> 3" in output


def _steps_logged(path: Path) -> int:
    log = path / "metrics.jsonl"
    lines = log.read_text().splitlines() if log.is_file() else []
    return json.loads(lines[-1])["step"] if lines else 0


def _kill_after(
    start: Command, path: Path, step: int, number: int, *arguments: str | Path
) -> tuple[int, str]:
    process = start("train", *arguments, "--run-dir", path)
    deadline = time.monotonic() + 300
    while not (_steps_logged(path) >= step and list(path.glob("checkpoints/step_*/manifest.json"))):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, number)
    output = process.communicate(timeout=120)[0]
    return process.returncode, output


def _assert_same_run(a: Path, b: Path) -> None:
    assert (a / "metrics.jsonl").read_bytes() == (b / "metrics.jsonl").read_bytes()
    for which in ("latest", "best"):
        left, right = (load_variables(p / "checkpoints", which=which) for p in (a, b))
        jax.tree.map(np.testing.assert_array_equal, left, right)
    left, right = (json.loads((p / "metrics.json").read_text()) for p in (a, b))
    assert left == right


def test_run_that_is_killed_and_twice_stopped_ends_with_the_same_bits(
    trained: tuple[Path, str], start: Command, finish: Callable[..., str], tmp_path: Path
) -> None:
    path = tmp_path / "run"
    code, _ = _kill_after(start, path, 3, signal.SIGKILL, *RUN)
    assert code == -signal.SIGKILL
    for number, expected in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        code, output = _kill_after(start, path, _steps_logged(path) + 2, number)
        assert code == expected, output
        assert "resumed at step" in output
        assert "interrupted at step" in output
        assert f"wbc-jax train --run-dir {path}" in output
    assert "resumed at step" in finish("train", "--run-dir", path)
    _assert_same_run(path, trained[0])


def test_divergence_stops_with_its_own_code_and_keeps_the_last_good_state(
    finish: Callable[..., str], tmp_path: Path
) -> None:
    path = tmp_path / "diverged"
    output = finish(
        "train", *SMALL, "--optim.name", "sgd", "--optim.learning-rate", "90", "--optim.schedule", "constant",
        "--train.epochs", "200", "--checkpoint.every-steps", "1", "--run-dir", path, code=4,
    )  # fmt: skip
    report = json.loads((path / "nonfinite.json").read_text())
    assert len(report["images"]) == 16
    assert "is not finite at step" in output
    leaves = jax.tree.leaves(load_variables(path / "checkpoints", which="latest"))
    assert all(np.isfinite(leaf).all() for leaf in leaves)


def test_pmap_runs_end_to_end(finish: Callable[..., str], tmp_path: Path) -> None:
    finish(
        "train", *SMALL, "--train.execution", "pmap", "--train.epochs", "1", "--run-dir", tmp_path / "pmap"
    )
    rows = [json.loads(line) for line in (tmp_path / "pmap" / "metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite(row["train.loss"]) for row in rows if "train.loss" in row)


def test_streamed_and_resident_runs_are_the_same(
    trained: tuple[Path, str], finish: Callable[..., str], tmp_path: Path
) -> None:
    assert "images live on the devices" in trained[1]
    finish("train", *RUN, "--data.loader", "stream", "--run-dir", tmp_path / "stream")
    _assert_same_run(tmp_path / "stream", trained[0])

"""`wbc-jax train` on several devices and processes: the same run as on one, and a clear end when one is lost.

Processes of a group are started here as a launcher would start them. They share a small CPU, so networks and data
are the smallest that still have BatchNorm, dropout, mixup and a ragged evaluation batch.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest

from wbc_jax.runtime.checkpoints import load_variables

from .conftest import IN_ONE_PIECE, SMALL, Command

# 42 images do not divide by four devices: there a batch is filled up to 44.
RUN = (*SMALL, "--train.epochs", "2", "--checkpoint.every-steps", "2", "--eval.batch-size", "42")


def _devices(count: int) -> dict[str, str]:
    flags = f"--xla_force_host_platform_device_count={count} {IN_ONE_PIECE}"
    return {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def _start_two(
    start: Command, *arguments: str | Path, launcher: str = "config"
) -> list[subprocess.Popen[str]]:
    """Two processes of two devices each, process 0 first."""
    port, processes = _free_port(), []
    for index in range(2):
        words = arguments
        variables: dict[str, str] = {}
        if launcher == "config":
            words = (
                *arguments,
                "--runtime.coordinator", f"127.0.0.1:{port}",
                "--runtime.num-processes", "2",
                "--runtime.process-id", str(index),
            )  # fmt: skip
        else:
            variables = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            variables |= {"WORLD_SIZE": "2", "RANK": str(index)}
        processes.append(start("train", *words, **_devices(2), **variables))
    return processes


def _end(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    """Exit code and output of each; none outlives the test."""
    try:
        outputs = [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, text) for process, text in zip(processes, outputs, strict=True)]


def _rows(path: Path) -> list[dict[str, float]]:
    log = path / "metrics.jsonl"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []


def _assert_close(a: Path, b: Path) -> None:
    """The same run within float32: losses, gradients, scores, parameters, statistics, test predictions."""
    ours, theirs = _rows(a), _rows(b)
    assert len(ours) == len(theirs)
    for left, right in zip(ours, theirs, strict=True):
        assert left == pytest.approx(right, rel=5e-3, abs=1e-4)
    for which in ("latest", "best"):
        left, right = (load_variables(p / "checkpoints", which=which) for p in (a, b))
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4), left, right)
    left, right = (json.loads((p / "metrics.json").read_text()) for p in (a, b))
    assert left["test"]["count"] == right["test"]["count"]
    assert left["best_step"] == right["best_step"]
    assert left["test.loss"] == pytest.approx(right["test.loss"], rel=1e-3)


@pytest.fixture(scope="module")
def one_device(finish: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("devices") / "one"
    finish("train", *RUN, "--run-dir", path, **_devices(1))
    return path


def test_four_devices_of_one_process_give_the_same_run(
    one_device: Path, finish: Callable[..., str], tmp_path: Path
) -> None:
    finish("train", *RUN, "--run-dir", tmp_path / "four", **_devices(4))
    _assert_close(tmp_path / "four", one_device)


def test_two_processes_give_the_same_run_and_one_of_them_speaks(
    one_device: Path, start: Command, tmp_path: Path
) -> None:
    path = tmp_path / "two"
    arguments = (*RUN, "--data.loader", "stream", "--run-dir", path)
    (code, output), (other_code, other_output) = _end(_start_two(start, *arguments, launcher="torchrun"))
    assert (code, other_code) == (0, 0), output + other_output
    _assert_close(path, one_device)
    assert "goodput" in output
    for word in ("training classes", "epoch", "goodput", "accuracy"):
        assert word not in other_output
    saved = json.loads((path / "config.json").read_text())
    assert saved["runtime"]["coordinator"] is None  # the directory does not remember where it was made


def _kill_one(start: Command, path: Path, index: int) -> tuple[int, str]:
    """Kills a process after the first checkpoint; exit code and output of the other."""
    processes = _start_two(start, *RUN, "--run-dir", path)
    deadline_s = time.monotonic() + 240
    while not list(path.glob("checkpoints/step_*/manifest.json")):
        assert processes[0].poll() is None, processes[0].communicate()[0]
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    os.kill(processes[index].pid, signal.SIGKILL)
    killed_s = time.monotonic()
    other = _end(processes)[1 - index]
    assert time.monotonic() - killed_s < 60  # jax alone takes more than 100 s, then aborts
    return other


def test_a_killed_process_ends_the_others_and_the_run_goes_on_elsewhere(
    one_device: Path, start: Command, finish: Callable[..., str], tmp_path: Path
) -> None:
    path = tmp_path / "killed"
    code, output = _kill_one(start, path, 1)
    assert code == 5, output
    assert "process 1 ended before the run did" in output

    resumed = finish("train", "--run-dir", path, **_devices(1))
    assert "resumed at step" in resumed
    _assert_close(path, one_device)


def test_process_0_is_missed_at_once_and_the_run_goes_on_with_both(
    one_device: Path, start: Command, tmp_path: Path
) -> None:
    path = tmp_path / "killed_first"
    code, output = _kill_one(start, path, 0)
    assert code == 5, output
    assert "process 0 ended before the run did" in output

    (code, output), (other_code, other_output) = _end(_start_two(start, "--run-dir", path))
    assert (code, other_code) == (0, 0), output + other_output
    assert "resumed at step" in output
    _assert_close(path, one_device)


def test_a_signal_to_one_process_stops_all_at_the_same_step(
    one_device: Path, start: Command, finish: Callable[..., str], tmp_path: Path
) -> None:
    path = tmp_path / "stopped"
    processes = _start_two(start, *RUN, "--run-dir", path)
    deadline_s = time.monotonic() + 240
    while not _rows(path):
        assert processes[0].poll() is None, processes[0].communicate()[0]
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    os.kill(processes[1].pid, signal.SIGTERM)
    (code, output), (other_code, other_output) = _end(processes)
    assert (code, other_code) == (143, 143), output + other_output
    assert "interrupted at step" in output
    finish("train", "--run-dir", path, **_devices(4))
    _assert_close(path, one_device)


def test_different_configs_are_refused_by_all(start: Command, tmp_path: Path) -> None:
    port = _free_port()
    processes = [
        start(
            "train", *RUN, "--run-dir", tmp_path / "run", "--train.seed", str(index),
            "--runtime.coordinator", f"127.0.0.1:{port}", "--runtime.num-processes", "2",
            "--runtime.process-id", str(index), **_devices(1),
        )
        for index in range(2)
    ]  # fmt: skip
    for code, output in _end(processes):
        assert code == 2, output
        assert "the configuration of process 1 differs from that of process 0" in output
    assert not (tmp_path / "run").exists()

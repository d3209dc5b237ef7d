"""DAFFNet's three steps killed in every stage and resumed: the result is that of an undisturbed run, to the bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
from small_smears import STAGED

from wbc_jax.runtime.checkpoints import load_variables

from .conftest import IN_ONE_PIECE

SCRIPT = Path(__file__).resolve().parents[1] / "small_smears.py"
PATIENCE_S = 900


def start(run_dir: Path, cache: Path, *options: str) -> subprocess.Popen[str]:
    kept = {k: v for k, v in os.environ.items() if k != "WBC_DATA_DIR"}
    with run_dir.with_suffix(".log").open("a") as log:
        return subprocess.Popen(
            [sys.executable, str(SCRIPT), "train", *options, "--run-dir", str(run_dir)],
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
            env={**kept, "XLA_FLAGS": IN_ONE_PIECE, "WBC_CACHE_DIR": str(cache)},
        )


def printed(run_dir: Path) -> str:
    return run_dir.with_suffix(".log").read_text()


def kill_when(process: subprocess.Popen[str], run_dir: Path, pattern: str) -> None:
    """SIGKILL as soon as a file of that name is there."""
    deadline = time.monotonic() + PATIENCE_S
    while not list(run_dir.glob(pattern)):
        assert process.poll() is None, printed(run_dir)
        assert time.monotonic() < deadline, printed(run_dir)
        time.sleep(0.01)
    process.kill()
    assert process.wait(60) == -signal.SIGKILL, "the stage was over before it could be killed"


def test_killed_in_every_stage_and_resumed_to_the_same_bits(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    options = ("--config", "daffnet:tiny", *STAGED)
    # Side by side: each compiles for most of the time.
    undisturbed = start(whole, tmp_path / "cache", *options)
    for pattern in (
        "stages/1_map/checkpoints/step_*/manifest.json",
        "stages/2_pseudo/stage.json",
        "stages/3_map_mixed/checkpoints/step_*/manifest.json",
        "stages/4_fusion/checkpoints/step_*/manifest.json",
    ):
        kill_when(start(killed, tmp_path / "cache", *options), killed, pattern)
        options = ()  # from here on as a user resumes
    assert start(killed, tmp_path / "cache").wait(PATIENCE_S) == 0, printed(killed)
    assert undisturbed.wait(PATIENCE_S) == 0, printed(whole)

    assert printed(killed).count("resumed at step") == 3
    assert "complete and unchanged, not repeated" in printed(killed)
    assert "resumed at step" not in printed(whole)
    for stage in ("1_map", "3_map_mixed", "4_fusion"):
        left, right = (run / "stages" / stage for run in (killed, whole))
        assert (left / "metrics.jsonl").read_bytes() == (right / "metrics.jsonl").read_bytes(), stage
        for which in ("latest", "best"):
            jax.tree.map(
                np.testing.assert_array_equal,
                *(load_variables(path / "checkpoints", which=which) for path in (left, right)),
            )
    labels = [(run / "stages" / "2_pseudo" / "pseudo_labels.csv").read_bytes() for run in (killed, whole)]
    assert labels[0] == labels[1]
    metrics = [json.loads((run / "metrics.json").read_text()) for run in (killed, whole)]
    assert metrics[0] == metrics[1]

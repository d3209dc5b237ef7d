"""Whole commands in processes of their own, sharing one cache, so that the embedded data set is drawn once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

SMALL = (
    "--data.image-size-px", "32",
    "--data.store-size-px", "36",
    "--data.max-images-per-class", "16",
    "--model.name", "resnet_tiny",
    "--model.dropout-rate", "0.5",
    "--train.batch-size", "16",
    "--log.every-steps", "2",
    "--eval.bootstrap-samples", "50",
)  # fmt: skip
"""A run of seconds: 80 images, 5 steps an epoch."""

IN_ONE_PIECE = "--xla_cpu_parallel_codegen_split_count=1"
"""XLA's flag that makes small programs compile sooner, as in `tests/conftest.py`."""

Command = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    cache = shared / "cache"
    cache.mkdir(mode=0o700, exist_ok=True)
    # Not this process's XLA_FLAGS: one device, and the emitters whose rounding does not depend on the loader.
    kept = {k: v for k, v in os.environ.items() if k != "WBC_DATA_DIR"}
    return {**kept, "XLA_FLAGS": IN_ONE_PIECE, "WBC_CACHE_DIR": str(cache), "COLUMNS": "140"}


@pytest.fixture(scope="session")
def start(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Command:
    """Starts `wbc-jax ARGUMENTS` outside the checkout."""
    folder = tmp_path_factory.mktemp("elsewhere")

    def run(*arguments: str | Path, cwd: Path | None = None, **extra: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "wbc_jax", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=cwd or folder,
            env={**environment, **extra},
        )

    return run


@pytest.fixture(scope="session")
def finish(start: Command) -> Callable[..., str]:
    """Runs a command to its end and returns what it printed; the exit code must be as given."""

    def run(*arguments: str | Path, code: int = 0, cwd: Path | None = None, **extra: str) -> str:
        process = start(*arguments, cwd=cwd, **extra)
        output = process.communicate(timeout=600)[0]
        assert process.returncode == code, output
        return output

    return run


@pytest.fixture(scope="session")
def trained(finish: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A finished run directory, and what the command printed."""
    path = tmp_path_factory.mktemp("runs") / "whole"
    output = finish(
        "train", *SMALL, "--train.epochs", "3", "--checkpoint.every-steps", "2", "--run-dir", path
    )
    return path, output

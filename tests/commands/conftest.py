"""One small run for all tests of the commands that apply a network."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_run import make_run

from wbc_jax.commands.run import LoadedRun, load_run


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tests may add evaluations to it, and nothing else."""
    return make_run(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def run(run_dir: Path) -> LoadedRun:
    return load_run(run_dir)


@pytest.fixture(scope="session")
def pictures(run_dir: Path) -> Path:
    """Folder of 15 pictures."""
    return run_dir.parent / "images" / "test"

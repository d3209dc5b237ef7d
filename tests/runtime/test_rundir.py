"""Run directories: names, the lock between processes, the state on record."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from wbc_jax.errors import UsageError
from wbc_jax.runtime.rundir import new_run_dir, open_run_dir, read_state

HOLD = """
import sys
from wbc_jax.runtime.rundir import open_run_dir
with open_run_dir(sys.argv[1]) as run:
    run.set_state("running", step=3)
    print("open", flush=True)
    sys.stdin.read()
"""


def test_new_directories_are_numbered(tmp_path: Path) -> None:
    names = []
    for _ in range(2):
        with new_run_dir(tmp_path / "runs", "scam:tiny") as run:
            names.append(run.path.name)
            assert run.path.is_dir()
            assert run.state() is None
    stems, numbers = zip(*(name.rsplit("-", 1) for name in names), strict=True)
    assert numbers == ("1", "2")
    assert stems[0] == stems[1]
    assert stems[0].startswith("scam-tiny-2")


def test_second_process_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(UsageError, match=rf"process {holder.pid}\)") as caught:
            open_run_dir(tmp_path)
        assert str(tmp_path) in str(caught.value)
        assert read_state(tmp_path) == "running"
    finally:
        holder.kill()
        holder.communicate()
    with open_run_dir(tmp_path) as run:
        assert run.state() == "running"
        run.set_state("finished")
    assert read_state(tmp_path) == "finished"


def test_same_process_is_refused_too_and_may_open_again_after_closing(tmp_path: Path) -> None:
    with open_run_dir(tmp_path / "run"), pytest.raises(UsageError, match="another process"):
        open_run_dir(tmp_path / "run")
    open_run_dir(tmp_path / "run").close()


def test_unreadable_state_is_no_state(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text('{"state": "runn')
    assert read_state(tmp_path) is None
    (tmp_path / "status.json").write_text('{"state": "odd"}')
    assert read_state(tmp_path) is None


def test_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be made"):
        open_run_dir(tmp_path / "file" / "run")


def test_misspelt_state_is_refused(tmp_path: Path) -> None:
    with open_run_dir(tmp_path) as run, pytest.raises(ValueError, match="unknown state"):
        run.set_state("done")  # pyright: ignore[reportArgumentType]

"""Run directories: one per run, written by one process at a time, with its state on record."""

from __future__ import annotations

import datetime
import os
import re
from pathlib import Path
from typing import Any, Literal, get_args

from wbc_jax.errors import DataError, UsageError
from wbc_jax.runtime.json_files import read_json, write_json
from wbc_jax.runtime.locks import FileLock, HeldElsewhere

RunState = Literal["running", "finished", "interrupted", "diverged", "failed"]

LOCK_NAME = "run.lock"
STATUS_NAME = "status.json"
STAGES_NAME = "stages.json"


class RunDir:
    """An open run directory. A context manager: leaving it releases the lock.

    Attributes:
        path: the directory; below it config.json, provenance.json, split.json, metrics.jsonl, timings.jsonl,
            metrics.json, checkpoints/, predictions/, figures/, tensorboard/, report.html.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._lock = _take_lock(self.path)

    def set_state(self, state: RunState, **details: Any) -> None:
        """Records how the run stands, with JSON details such as the step."""
        if state not in get_args(RunState):
            raise ValueError(f"unknown state {state!r}")
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        write_json(self.path / STATUS_NAME, {"state": state, "pid": os.getpid(), "updated": now, **details})

    def state(self) -> RunState | None:
        """The recorded state; None for a new run. Found at opening, `running` means that the last process was
        killed, since we hold the lock."""
        return read_state(self.path)

    def close(self) -> None:
        """Releases the lock."""
        self._lock.release()

    def __enter__(self) -> RunDir:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class FollowedRunDir:
    """The run directory on a process that leaves it to process 0: nothing is locked, read or written.

    Attributes:
        path: the directory on process 0.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def set_state(self, state: RunState, **details: Any) -> None:
        """Does nothing; process 0 records the state."""

    def __enter__(self) -> FollowedRunDir:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def new_run_dir(root: str | Path, name: str) -> RunDir:
    """Makes and opens `root/<name>-<date>-<n>`, n counting from 1; `:` and the like become `-`."""
    root = Path(root)
    stem = re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-.") or "run"
    stem = f"{stem}-{datetime.date.today():%Y%m%d}"
    root.mkdir(parents=True, exist_ok=True)
    for number in range(1, 10_000):
        path = root / f"{stem}-{number}"
        try:
            path.mkdir()  # exclusive: two processes that start together get different numbers
        except FileExistsError:
            continue
        return RunDir(path)
    raise UsageError(f"10,000 runs named {stem}", where=str(root), remedy="give --run-dir")


def open_run_dir(directory: str | Path) -> RunDir:
    """Opens a run directory, making it if it does not exist.

    Raises:
        UsageError: another process is writing there, or the directory cannot be made.
    """
    path = Path(directory)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"the run directory cannot be made: {error}", where=str(path)) from error
    return RunDir(path)


def read_state(directory: str | Path) -> RunState | None:
    """The state on record in a run directory, by any process; None when there is none or it is unreadable."""
    try:
        state = read_json(Path(directory) / STATUS_NAME)["state"]
    except (DataError, KeyError, TypeError):
        return None
    return state if state in get_args(RunState) else None


def resolve_run_dir(directory: str | Path) -> Path:
    """The directory of the network that a run ends with: that of its last stage, or the run's own.

    Raises:
        UsageError: the run has stages, and the last has not begun.
    """
    directory = Path(directory)
    if not (directory / STAGES_NAME).is_file():
        return directory
    last = directory / str(read_json(directory / STAGES_NAME)["result"])
    if not (last / STATUS_NAME).is_file():
        raise UsageError(
            f"the run has not reached its last stage, {last.name}",
            expected="a run whose last stage has been trained",
            where=str(directory),
            remedy=f"go on with it: wbc-jax train --run-dir {directory}; or give one of its stages, "
            f"{last.parent}/…",
        )
    return last


def _take_lock(path: Path) -> FileLock:
    try:
        return FileLock(path / LOCK_NAME)
    except HeldElsewhere as held:
        raise UsageError(
            f"another process is writing this run{held.found}",
            where=str(path),
            remedy="wait until it ends, end it, or give another --run-dir",
        ) from held
    except OSError as error:
        raise UsageError(f"the run directory cannot be written: {error}", where=str(path)) from error

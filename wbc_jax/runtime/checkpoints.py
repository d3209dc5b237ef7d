"""Checkpoints that survive kill -9, full disks and flipped bits.

    checkpoints/step_00000123/{variables,training}/   arrays (Orbax)
                              checkpoint.json         step, caller's digests, names, dtypes, shapes
                              manifest.json           digests of all files; written last
    checkpoints/best/                                 the same, for the best validation score

A checkpoint holds arrays, the step and digests, nothing else: the position in the data follows from the step.
Arrays are copied to the host before `save` returns; writing, sealing, renaming, verifying and only then
deleting older checkpoints happen in a thread, one save at a time.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from wbc_jax.errors import CheckpointError
from wbc_jax.runtime import named_arrays, sealed
from wbc_jax.runtime.checkpoint_reading import (
    BEST_NAME,
    INFO_NAME,
    CheckpointInfo,
    DamagedCheckpointError,
    Restored,
    load_variables,
    read_info,
    restore_directory,
    step_of,
    step_paths,
)
from wbc_jax.runtime.json_files import dumps_strict, write_json

__all__ = ["CheckpointInfo", "Checkpoints", "Restored", "load_variables", "read_info"]


class Checkpoints:
    """The checkpoints of one run, for the one process that writes them.

    Args:
        directory: `RUN_DIR/checkpoints`; made if missing. What an interrupted process left is tidied.
        keep: newest checkpoints kept, besides the best.
        report: receives a line when a damaged checkpoint is passed over or a failed save is tolerated.
        tolerate_failures: a save that fails (disk full) is reported and training goes on to the next one;
            `close` still raises if the last one failed. False: the next `save` or `wait` raises.

    Raises:
        CheckpointError: the directory cannot be made or written.
    """

    def __init__(
        self,
        directory: str | Path,
        keep: int = 2,
        *,
        report: Callable[[str], None] = print,
        tolerate_failures: bool = False,
    ) -> None:
        if keep < 1:
            raise ValueError(f"keep must be at least 1, not {keep}")
        self.directory = Path(directory).absolute()
        self._keep = keep
        self._report = report
        self._tolerate_failures = tolerate_failures
        self._last_failed: CheckpointError | None = None
        self._pending: Future[None] | None = None
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            sealed.tidy(self.directory)
        except OSError as error:
            raise CheckpointError(f"cannot use the directory: {error}", where=str(self.directory)) from error
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoints")

    def save(self, step: int, state: Any, extra: Mapping[str, Any]) -> None:
        """Starts saving `state` as the checkpoint of `step` and returns when the arrays are on the host.

        Args:
            step: updates done so far.
            state: any tree of arrays; None and empty nodes are kept by the caller's structure.
            extra: JSON values such as digests and the best score; numpy scalars are converted, NaN is refused.

        Raises:
            CheckpointError: the previous save failed. The state is untouched, and a later call tries again.
        """
        self._start(int(step), state, extra, self._step_path(int(step)))

    def save_best(self, step: int, state: Any, extra: Mapping[str, Any]) -> None:
        """Like `save`, as `best`, in place of the previous best; returns when it is complete on the disk.

        It waits because a log row that calls a state the best must never outlive that state.
        """
        self._start(int(step), state, extra, self.directory / BEST_NAME)
        self.wait()

    def restore_latest(self, abstract_state: Any) -> Restored | None:
        """The newest valid checkpoint, or None when nothing was ever saved.

        Args:
            abstract_state: tree like the saved one, of arrays or `jax.ShapeDtypeStruct`; the sharding of
                each leaf, of the current mesh, says where the restored array goes.

        Raises:
            CheckpointError: none of the checkpoints is valid, or the newest valid one has another structure.
        """
        self.wait()
        passed_over: list[Path] = []
        for path in step_paths(self.directory):
            try:
                restored = restore_directory(path, abstract_state)
            except DamagedCheckpointError as error:
                passed_over.append(path)
                self._report(f"{error.found} ({error.where}); trying the next older checkpoint")
                continue
            for damaged in passed_over:
                self._set_aside(damaged)
            return restored
        if passed_over:
            raise CheckpointError(
                f"none of the {len(passed_over)} checkpoints is valid",
                where=str(self.directory),
                remedy="start again with another --run-dir, or delete this directory to train from the start",
            )
        return None

    def restore_best(self, abstract_state: Any) -> Restored | None:
        """The best checkpoint, or None when there is none or it is damaged (which is reported)."""
        self.wait()
        for path in sealed.candidates(self.directory / BEST_NAME):
            try:
                return restore_directory(path, abstract_state)
            except DamagedCheckpointError as error:
                self._report(f"{error.found} ({error.where})")
        return None

    def restore(self, path: str | Path, abstract_state: Any) -> Restored:
        """The checkpoint in the directory `path`.

        Raises:
            CheckpointError: it is missing, incomplete, damaged, or of another structure.
        """
        self.wait()
        return restore_directory(Path(path), abstract_state)

    def latest_step(self) -> int | None:
        """Step of the newest complete checkpoint on the disk now; its digests are checked at restore."""
        return next(
            (step_of(path) for path in step_paths(self.directory) if (path / sealed.MANIFEST_NAME).exists()),
            None,
        )

    def wait(self) -> None:
        """Returns when nothing is being written.

        Raises:
            CheckpointError: the last save failed; it is raised once.
        """
        pending, self._pending = self._pending, None
        if pending is None:
            return
        try:
            pending.result()
            self._last_failed = None
        except CheckpointError as error:
            self._last_failed = error
            if not self._tolerate_failures:
                raise
            self._report(f"{error.found} ({error.where}); training goes on to the next save")

    def close(self) -> None:
        """Waits, and ends the writing thread.

        Raises:
            CheckpointError: the last save failed, tolerated or not.
        """
        try:
            self.wait()
        finally:
            self._thread.shutdown()
        if self._last_failed is not None and self._tolerate_failures:
            raise self._last_failed

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.close()
        except CheckpointError as error:
            if kind is None:
                raise
            self._report(f"{error.found} ({error.where})")  # the error under way says more

    def _step_path(self, step: int) -> Path:
        return self.directory / f"step_{step:08d}"

    def _start(self, step: int, state: Any, extra: Mapping[str, Any], target: Path) -> None:
        self.wait()
        plain_meta = json.loads(
            dumps_strict(dict(extra))
        )  # a value without a JSON form fails here, not later
        arrays = named_arrays.snapshot(state)
        self._pending = self._thread.submit(self._commit, step, arrays, plain_meta, target)

    def _commit(self, step: int, arrays: dict[str, np.ndarray], meta: dict[str, Any], target: Path) -> None:
        needed_bytes = sum(array.nbytes for array in arrays.values())
        prepared: Path | None = None
        try:
            _require_space(self.directory, needed_bytes)
            prepared = sealed.partial_path(target)
            named_arrays.write_arrays(prepared, arrays)
            info = {"step": step, "meta": meta, "arrays": named_arrays.describe(arrays)}
            write_json(prepared / INFO_NAME, info)
            sealed.seal(prepared)
            sealed.publish(prepared, target)
            sealed.verify(target)
        except Exception as error:  # array libraries raise anything; whatever it is, the save failed
            if prepared is not None:
                shutil.rmtree(prepared, ignore_errors=True)
            raise CheckpointError(
                f"saving step {step} failed: {error}",
                expected=f"a writable directory with room for {needed_bytes:,} bytes",
                where=str(target),
                remedy="make room or restore access, then run the same command again: it resumes from "
                f"{_resume_text(self.latest_step())}",
            ) from error
        if target.name != BEST_NAME:
            self._prune(step)

    def _set_aside(self, damaged: Path) -> None:
        """Renames it, so that it neither counts as kept nor is tried again."""
        try:
            damaged.rename(_unused(damaged.with_name(f"damaged-{damaged.name}")))
        except OSError as error:
            self._report(f"a damaged checkpoint could not be renamed: {error}")

    def _prune(self, newest_step: int) -> None:
        older = [path for path in step_paths(self.directory) if step_of(path) <= newest_step]
        for path in older[self._keep :]:
            try:
                sealed.discard(path)
            except OSError as error:
                self._report(f"an old checkpoint could not be deleted: {error}")


def _unused(path: Path) -> Path:
    numbered = (path.with_name(f"{path.name}-{index}") for index in range(2, 1000))
    return path if not path.exists() else next(other for other in numbered if not other.exists())


def _require_space(directory: Path, needed_bytes: int) -> None:
    free_bytes = shutil.disk_usage(directory).free
    if free_bytes < needed_bytes:
        raise OSError(
            errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}, {free_bytes} bytes are free", str(directory)
        )


def _resume_text(step: int | None) -> str:
    return "the start, nothing was saved yet" if step is None else f"step {step}"

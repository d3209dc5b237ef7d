"""Logs of a run: rows of numbers as JSON lines and as TensorBoard events, both continued exactly after a resume."""

from __future__ import annotations

import errno
import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wbc_jax.errors import CheckpointError, DataError
from wbc_jax.runtime.json_files import dumps_strict, to_plain


class MetricsLog:
    """A file of one JSON object a line, each with a `step`.

    metrics.jsonl holds nothing that depends on the clock, so that the log of an interrupted and resumed run equals
    that of an uninterrupted one byte for byte; rates and times go to timings.jsonl. A line is written in one piece,
    and half a line, left by a crash, is removed at the next start.

    Args:
        path: the file; made if missing, else continued.

    Raises:
        DataError: the file holds a line that is no JSON object with a step.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.ftruncate(self._descriptor, whole)
        self._parse(content[:whole])

    def append(self, row: Mapping[str, Any]) -> None:
        """Adds a row; numpy scalars become numbers, numbers that are not finite become null.

        Raises:
            ValueError: it has no `step`.
            CheckpointError: it cannot be written, the disk is full for one; no half line stays.
        """
        if "step" not in row:
            raise ValueError(f"a row of {self.path.name} needs a step: {dict(row)}")
        line = (dumps_strict(_finite(to_plain(dict(row)))) + "\n").encode()
        before = os.fstat(self._descriptor).st_size
        try:
            written = os.write(self._descriptor, line)
            if written < len(line):  # a disk that fills up takes what fits
                os.ftruncate(self._descriptor, before)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise CheckpointError(
                f"a row of the log cannot be written: {error}",
                expected=f"room for {len(line)} bytes",
                where=str(self.path),
                remedy="make room or restore access, then run the same command again: it resumes",
            ) from error

    def rows(self) -> list[dict[str, Any]]:
        """All rows, oldest first."""
        return [row for row, _ in self._parse(self.path.read_bytes())]

    def rewind(self, step: int | None) -> None:
        """Removes the rows after `step`, the step of the restored checkpoint; None: all rows."""
        kept = [
            line
            for row, line in self._parse(self.path.read_bytes())
            if step is not None and row["step"] <= step
        ]
        partial = self.path.with_name(f".{self.path.name}.{os.getpid()}.partial")
        with partial.open("wb") as file:
            file.writelines(kept)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.path)
        os.close(self._descriptor)
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND)

    def sync(self) -> None:
        """Flushes to the disk, so that the rows survive a power failure; a killed process loses none anyway."""
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Closes the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _parse(self, content: bytes) -> list[tuple[dict[str, Any], bytes]]:
        parsed = []
        for number, line in enumerate(content.splitlines(keepends=True), start=1):
            try:
                row = json.loads(line)
                int(row["step"])
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(
                    f"line {number} is no JSON object with a step",
                    where=str(self.path),
                    remedy="restore the file, or delete it to lose the history",
                ) from error
            parsed.append((row, line))
        return parsed


class TensorBoardLog:
    """Scalars as TensorBoard event files, without TensorFlow.

    Args:
        directory: made if missing; every start adds a file.
    """

    def __init__(self, directory: str | Path) -> None:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        Path(directory).mkdir(parents=True, exist_ok=True)
        self._writer = EventFileWriter(str(directory))

    def append(self, row: Mapping[str, Any]) -> None:
        """Adds the finite numbers of a row at its `step`; `val.accuracy` is shown as `val/accuracy`."""
        from tensorboard.compat.proto import event_pb2, summary_pb2

        plain = to_plain(dict(row))
        summary, event = _message(summary_pb2, "Summary"), _message(event_pb2, "Event")
        values = [
            summary.Value(tag=name.replace(".", "/", 1), simple_value=value)
            for name, value in plain.items()
            if name != "step" and isinstance(value, int | float) and math.isfinite(value)
        ]
        self._writer.add_event(
            event(wall_time=time.time(), step=plain["step"], summary=summary(value=values))
        )

    def rewind(self, step: int | None) -> None:
        """Tells TensorBoard to forget what earlier files hold after `step`; None: everything."""
        from tensorboard.compat.proto import event_pb2

        first = 0 if step is None else step + 1
        event, session_log = _message(event_pb2, "Event"), _message(event_pb2, "SessionLog")
        start = session_log(status=session_log.START)
        self._writer.add_event(event(wall_time=time.time(), step=first, session_log=start))

    def close(self) -> None:
        """Writes what is buffered and closes the file."""
        self._writer.close()

    def __enter__(self) -> TensorBoardLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _message(module: Any, name: str) -> Any:
    """A protocol buffer class; they are made when their module runs, so a type checker cannot know them."""
    return getattr(module, name)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

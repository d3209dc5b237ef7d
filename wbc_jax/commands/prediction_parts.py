"""A long prediction in parts: each is complete or not there, so a killed one goes on behind its last complete part.

Beside `predictions.csv` lies, while it is being made, the folder `predictions.csv.parts`: `job.json` says for which
network, images and options it is, `part-000000.csv` holds rows, and `note-000000.json`, written last, makes the part
count. Parts of another job are thrown away.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from wbc_jax.data.decode import BadImage
from wbc_jax.errors import DataError, UsageError
from wbc_jax.evaluate.prediction_formats import format_of
from wbc_jax.evaluate.predictions import write_predictions
from wbc_jax.runtime.json_files import read_json, write_json
from wbc_jax.runtime.locks import FileLock, HeldElsewhere

JOB_FILE = "job.json"

_CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


@dataclass(frozen=True, kw_only=True)
class PartNote:
    """What a complete part holds.

    Attributes:
        images: images that were looked at, usable or not.
        predicted: number of images of each predicted class.
        skipped: (name, reason) of each image that could not be used.
        bytes: size of the file of rows.
    """

    images: int
    predicted: dict[str, int] = field(default_factory=dict)
    skipped: tuple[tuple[str, str], ...] = ()
    bytes: int = 0


@dataclass
class Tally:
    """What is counted while the rows of a part are made."""

    images: int = 0
    predicted: Counter[str] = field(default_factory=Counter)
    skipped: list[BadImage] = field(default_factory=list)


@contextlib.contextmanager
def writing(out: Path) -> Iterator[None]:
    """Keeps other processes from writing the same predictions meanwhile.

    Raises:
        UsageError: one writes them now, or nothing can be written there.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(out.with_name(out.name + ".lock"))
    except HeldElsewhere as held:
        raise UsageError(
            f"another process is writing these predictions{held.found}",
            where=str(out),
            remedy="wait until it ends, give another --out, or share the images out with --shard K/N, --shard auto",
        ) from held
    except OSError as error:
        raise UsageError(f"the predictions cannot be written: {error}", where=str(out)) from error
    try:
        yield
    finally:
        lock.release(remove=True)


class PredictionParts:
    """The folder of parts beside `out`."""

    def __init__(self, out: Path, job: str) -> None:
        """
        Args:
            out: file that the parts are for; the caller sees to it that no other process writes it, see `writing`.
            job: digest of all that decides the rows; parts of another one are removed.

        Raises:
            UsageError: the ending of `out` is none that can be written.
        """
        self._out, self._form = out, format_of(out)
        self.folder = out.with_name(out.name + ".parts")
        if self._job() != job:
            self.remove()
            self.folder.mkdir(parents=True)
            write_json(self.folder / JOB_FILE, {"job": job})

    def rows_file(self, index: int) -> Path:
        """Where the rows of a part lie."""
        return self.folder / f"part-{index:06d}{self._out.suffix}"

    def write(self, index: int, rows: Iterable[dict[str, str]], tally: Tally) -> PartNote:
        """Writes rows as they come, then what `tally` has counted while they came.

        Raises:
            DataError: no room is left, or nothing may be written.
        """
        file = self.rows_file(index)
        with self._explained():
            write_predictions(file, rows)
        note = PartNote(
            images=tally.images,
            predicted=dict(tally.predicted),
            skipped=tuple((problem.name, problem.reason) for problem in tally.skipped),
            bytes=file.stat().st_size,
        )
        with self._explained():
            write_json(self._note_file(index), asdict(note))
        return note

    def note(self, index: int) -> PartNote | None:
        """What is known of a part; None: it is not complete."""
        try:
            facts = read_json(self._note_file(index))
            note = PartNote(
                images=facts["images"],
                predicted=facts["predicted"],
                skipped=tuple((name, reason) for name, reason in facts["skipped"]),
                bytes=facts["bytes"],
            )
            complete = self.rows_file(index).stat().st_size == note.bytes
        except (OSError, DataError, KeyError, TypeError, ValueError):
            return None
        return note if complete else None

    def write_list(self, index: int, files: Sequence[Path]) -> None:
        """Notes which images a part is of, for a process that does not walk the folders itself."""
        write_json(self._list_file(index), [str(file) for file in files])

    def read_list(self, index: int) -> list[Path]:
        """The images of a part."""
        return [Path(name) for name in read_json(self._list_file(index))]

    def done(self) -> list[PartNote]:
        """The complete parts from the first one on, up to the first gap."""
        notes: list[PartNote] = []
        while (note := self.note(len(notes))) is not None:
            notes.append(note)
        return notes

    def any_done(self) -> bool:
        """Whether any part has its note: what a later call may go on from."""
        return any(self.folder.glob("note-*.json"))

    def join(self, count: int) -> None:
        """One file of the first `count` parts; it appears when it is complete. The parts stay until `remove`.

        Raises:
            DataError: no room is left, or nothing may be written.
        """
        partial = self._out.with_name(self._out.name + ".part")
        try:
            with self._explained():
                self._form.join([self.rows_file(index) for index in range(count)], partial)
                partial.replace(self._out)
        finally:
            partial.unlink(missing_ok=True)

    def remove(self) -> None:
        """Throws the parts away."""
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in _CANNOT_WRITE:
                raise
            files = self.folder.glob(f"part-*{self._out.suffix}")
            size = sum(file.stat().st_size for file in files)
            raise DataError(
                f"the predictions cannot be written: {os.strerror(error.errno)}",
                expected=f"room for the remaining rows and for all of them joined; those so far are {size:,} bytes",
                where=str(self.folder),
                remedy="free space there and give the same command again: it goes on behind its last complete part",
            ) from error

    def _list_file(self, index: int) -> Path:
        return self.folder / f"list-{index:06d}.json"

    def _note_file(self, index: int) -> Path:
        return self.folder / f"note-{index:06d}.json"

    def _job(self) -> str | None:
        try:
            return read_json(self.folder / JOB_FILE)["job"]
        except (OSError, DataError, KeyError, TypeError):
            return None

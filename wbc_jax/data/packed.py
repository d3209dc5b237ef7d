"""Packed stores. They are written here, image by image: memory does not grow with the data set, and no half store
is left. Their format and how they are read is in `wbc_jax.data.store`, whose names belong to this module too.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import psutil

from wbc_jax.data import store
from wbc_jax.data.framing import Framing, frame_image
from wbc_jax.data.samples import Sample, SampleColumns
from wbc_jax.data.store import (
    IMAGES_FILE,
    SAMPLES_FILE,
    STORE_FILE,
    STORE_FILES,
    PackedStore,
    open_store,
    verify_store,
)
from wbc_jax.errors import DataError

__all__ = [
    "PackedStore",
    "Sample",
    "SampleColumns",
    "StoreWriter",
    "open_store",
    "verify_store",
    "write_store",
]

_LINE_BYTES = 1024
"""Generous estimate of one line of labels."""


def write_store(
    directory: str | Path,
    samples: Iterable[Sample],
    *,
    size_px: int,
    framing: Framing,
    dataset: str,
    class_names: Sequence[str],
    expected_count: int | None = None,
) -> PackedStore:
    """Frames and packs samples in their order. What `directory` held before is replaced when all is written.

    Args:
        directory: the store to be; its parents are made.
        samples: each is taken, written and forgotten.
        size_px: side of the squares, px.
        framing: see `frame_image`.
        dataset: name of the data set.
        class_names: the data set's cell classes; every sample's is one of them.
        expected_count: number of samples, to check the free space first; None: their `len`, if they have one.

    Raises:
        DataError: for unknown classes, repeated ids, no samples, too little space, or a directory that cannot be
            written. Whatever `samples` raises goes through. Nothing is left behind, the former store stays.
    """
    count = len(samples) if expected_count is None and isinstance(samples, Sized) else expected_count
    with StoreWriter(
        directory,
        size_px=size_px,
        framing=framing,
        dataset=dataset,
        class_names=class_names,
        expected_count=count,
    ) as writer:
        for sample in samples:
            writer.add(sample)
        return writer.finish()


class StoreWriter:
    """Context manager behind `write_store`: `add` each sample, then `finish`; leaving without it removes all."""

    def __init__(
        self,
        directory: str | Path,
        *,
        size_px: int,
        framing: Framing,
        dataset: str,
        class_names: Sequence[str],
        expected_count: int | None = None,
        derived_from: Mapping[str, Any] | None = None,
    ) -> None:
        """Arguments as in `write_store`; `derived_from` says what a derived store was made from."""
        self._directory = Path(directory).resolve()
        self._size_px = size_px
        self._framing: Framing = framing
        self._dataset = dataset
        self._class_names = tuple(class_names)
        self._expected_count, self._derived_from = expected_count, derived_from
        owner = f".{self._directory.name}.partial-{socket.gethostname()}-"
        self._owner, self._partial = owner, self._directory.with_name(f"{owner}{os.getpid()}")
        self._ids: set[str] = set()
        self._digests = {IMAGES_FILE: hashlib.sha256(), SAMPLES_FILE: hashlib.sha256()}
        self._bytes = {IMAGES_FILE: 0, SAMPLES_FILE: 0}

    def __enter__(self) -> StoreWriter:
        with self._explained():
            self._refuse_foreign_directory()
            self._directory.parent.mkdir(parents=True, exist_ok=True)
            self._remove_abandoned()
            self._check_space()
            self._partial.mkdir()
        self._files = {}
        try:
            with self._explained():
                for name in (IMAGES_FILE, SAMPLES_FILE):
                    self._files[name] = (self._partial / name).open("wb")
        except BaseException:
            self._discard()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._discard()

    def add(self, sample: Sample) -> None:
        """Frames and appends one sample."""
        self.add_framed(sample, frame_image(sample.image, self._size_px, self._framing))

    def add_framed(self, sample: Sample, square: np.ndarray) -> None:
        """Appends a sample whose pixels are ready: uint8 `(size_px, size_px, 3)`."""
        store.check_sample(sample, self._class_names)
        if sample.id in self._ids:
            raise DataError(f"the id {sample.id!r} occurs twice", expected="unique ids", where=self._dataset)
        if square.shape != (self._size_px, self._size_px, 3) or square.dtype != np.uint8:
            raise ValueError(
                f"uint8 {(self._size_px, self._size_px, 3)} expected, got {square.dtype} {square.shape}"
            )
        self._ids.add(sample.id)
        pixels = square.tobytes()
        self._write(IMAGES_FILE, pixels)
        self._write(SAMPLES_FILE, store.sample_line(sample, pixels).encode("ascii"))

    def finish(self) -> PackedStore:
        """Seals the store, gives it its name and opens it."""
        if not self._ids:
            raise DataError("no samples to pack", expected="at least one image", where=self._dataset)
        facts = {
            "format": store.FORMAT,
            "version": store.VERSION,
            "dataset": self._dataset,
            "class_names": list(self._class_names),
            "size_px": self._size_px,
            "framing": self._framing,
            "count": len(self._ids),
            "derived_from": self._derived_from,
            "files": {
                name: {"bytes": self._bytes[name], "sha256": self._digests[name].hexdigest()}
                for name in (IMAGES_FILE, SAMPLES_FILE)
            },
        }
        with self._explained():
            for file in self._files.values():
                _flush(file)
                file.close()
            with (self._partial / STORE_FILE).open("wb") as file:
                file.write(store.store_text(facts).encode("utf-8"))
                _flush(file)
            self._take_name()
        return open_store(self._directory)

    def _write(self, name: str, data: bytes) -> None:
        with self._explained():
            self._files[name].write(data)
        self._digests[name].update(data)
        self._bytes[name] += len(data)

    def _take_name(self) -> None:
        """The former store steps aside first: a directory that is not empty cannot be replaced in one move."""
        former = self._directory.with_name(f"{self._partial.name}-former")
        if self._directory.exists():
            self._directory.rename(former)
        try:
            self._partial.rename(self._directory)
        except OSError:
            if former.exists():
                former.rename(self._directory)
            raise
        shutil.rmtree(former, ignore_errors=True)

    def _refuse_foreign_directory(self) -> None:
        """Only a former store, whole or damaged, may be replaced: anything else is somebody's data."""
        if not self._directory.exists():
            return
        foreign = (
            [self._directory.name]
            if not self._directory.is_dir()
            else sorted(path.name for path in self._directory.iterdir() if path.name not in STORE_FILES)
        )
        if foreign:
            raise DataError(
                f"{foreign[0]!r} does not belong to a packed store, so nothing is replaced here",
                expected="a new or empty directory, or a former store",
                where=str(self._directory),
                remedy="choose another directory",
            )

    def _check_space(self) -> None:
        if self._expected_count is None:
            return
        free = shutil.disk_usage(self._directory.parent).free
        if free < self._needed_bytes():
            raise self._no_space(f"only {free:,} bytes are free")

    def _needed_bytes(self) -> int:
        count = max(self._expected_count or 0, len(self._ids))
        return count * (self._size_px**2 * 3 + _LINE_BYTES)

    def _no_space(self, found: str) -> DataError:
        at_least = "" if self._expected_count else "more than "
        return DataError(
            f"no space for the prepared store: {found}",
            expected=f"{at_least}{self._needed_bytes():,} bytes",
            where=str(self._directory),
            remedy="free some space, choose another --data.cache-dir, or a smaller --data.store-size-px",
        )

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Errors of the file system as errors that say where and how much."""
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise self._no_space(str(error.strerror)) from error
            raise DataError(
                f"the prepared store cannot be written: {error.strerror or error}",
                expected=f"a directory to write {self._needed_bytes():,} bytes to",
                where=str(error.filename or self._directory),
                remedy="check the path and its permissions, or choose another --data.cache-dir",
            ) from error

    def _discard(self) -> None:
        for file in self._files.values():
            with contextlib.suppress(OSError):
                file.close()  # flushes, which a full disk refuses again
        shutil.rmtree(self._partial, ignore_errors=True)

    def _remove_abandoned(self) -> None:
        """What killed preparations of this store left behind on this host."""
        for path in self._directory.parent.glob(f"{self._owner}*"):
            pid = path.name.removeprefix(self._owner).split("-")[0]
            if pid == str(os.getpid()) or (pid.isdigit() and not psutil.pid_exists(int(pid))):
                shutil.rmtree(path, ignore_errors=True)


def _flush(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())

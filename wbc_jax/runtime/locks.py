"""One writer at a time: a lock file that the operating system frees when its process ends, however it ends."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

try:
    import fcntl
except ImportError:  # no POSIX locks: only this process keeps itself out
    fcntl = None

# POSIX locks belong to the process, so a second lock of the same process would be granted: kept out here.
_held: set[Path] = set()


class HeldElsewhere(Exception):
    """A lock is held.

    Attributes:
        pid: of its holder; None: not known.
    """

    def __init__(self, pid: int | None) -> None:
        super().__init__(pid)
        self.pid = pid

    @property
    def found(self) -> str:
        """The holder, for a message: ` (process 12)`, or nothing."""
        return "" if self.pid is None else f" (process {self.pid})"


class FileLock:
    """A lock that is held from its making until `release`."""

    def __init__(self, file: Path) -> None:
        """
        Args:
            file: made where it does not exist; holds the process's number while the lock is held.

        Raises:
            HeldElsewhere: it is held, by another process or by this one.
            OSError: the file cannot be made or written.
        """
        self._file = file.resolve()
        if self._file in _held:
            raise HeldElsewhere(os.getpid())
        self._descriptor: int | None = _locked(self._file)
        os.ftruncate(self._descriptor, 0)
        os.write(self._descriptor, json.dumps({"pid": os.getpid()}).encode())
        _held.add(self._file)

    def release(self, *, remove: bool = False) -> None:
        """Frees the lock, once; with `remove` the file goes away first."""
        if self._descriptor is None:
            return
        if remove:
            self._file.unlink(missing_ok=True)
        os.close(self._descriptor)
        self._descriptor = None
        _held.discard(self._file)


def _locked(file: Path) -> int:
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if fcntl is not None:
                # lockf, not flock: forked children (loader workers that outlive us) must not inherit it.
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(descriptor, 4096)
            os.close(descriptor)
            raise HeldElsewhere(_pid(holder)) from error
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), file.stat()):
                return descriptor
        # Its last holder removed it in between: another file has, or will have, that name.
        os.close(descriptor)


def _pid(content: bytes) -> int | None:
    try:
        return int(json.loads(content)["pid"])
    except (ValueError, KeyError, TypeError):
        return None

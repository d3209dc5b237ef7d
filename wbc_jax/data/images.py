"""Where a loader's images come from: one memory map, or several under one row number."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

MapFacts = tuple[str, str, tuple[int, ...], int]
"""File, dtype, shape and offset of a memory map."""


class Images(Protocol):
    """uint8 `(N, S, S, 3)` to take rows from: a NumPy array, or `MixedImages`."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, rows: Any, /) -> Any: ...


def whole_map(images: Any) -> MapFacts | None:
    """What it takes to open a memory map anew in another process; None for anything else."""
    # Only a map of a whole file knows its own offset; a slice of one is sent by value.
    if isinstance(images, np.memmap) and isinstance(images.base, mmap.mmap) and images.filename is not None:
        return str(images.filename), images.dtype.str, images.shape, images.offset
    return None


def open_map(facts: MapFacts) -> np.memmap:
    """The map that `whole_map` told of, read-only."""
    filename, dtype, shape, offset = facts
    return np.memmap(filename, np.dtype(dtype), mode="r", offset=offset, shape=shape)


class MixedImages:
    """Images of several stores, one store's rows after the other's; none is copied before it is asked for."""

    def __init__(self, parts: Sequence[np.ndarray]) -> None:
        """Args: parts: uint8 `(N_i, S, S, 3)`, of one size."""
        sides = {part.shape[1:] for part in parts}
        if len(sides) != 1:
            raise ValueError(f"images of one size expected, got {sorted(sides)}")
        self._parts = list(parts)
        self.starts = np.cumsum([0, *(len(part) for part in parts)])
        """int64 `(parts + 1,)`: part i holds the rows from `starts[i]` up to `starts[i + 1]`."""

    @property
    def shape(self) -> tuple[int, ...]:
        return int(self.starts[-1]), *self._parts[0].shape[1:]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Rows int `(n,)` -> uint8 `(n, S, S, 3)`."""
        rows = np.asarray(rows)
        if rows.size and not 0 <= rows.min() <= rows.max() < self.shape[0]:
            raise IndexError(f"rows from 0 to {self.shape[0] - 1} expected")
        taken = np.empty((*rows.shape, *self.shape[1:]), np.uint8)
        owners = np.searchsorted(self.starts, rows, side="right") - 1
        for owner in np.unique(owners):
            mine = owners == owner
            taken[mine] = self._parts[owner][rows[mine] - self.starts[owner]]
        return taken

    def __getstate__(self) -> dict[str, Any]:
        """Crosses to worker processes by the file names of the memory maps, not by their contents."""
        return {"parts": [whole_map(part) or part for part in self._parts]}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__([open_map(part) if isinstance(part, tuple) else part for part in state["parts"]])

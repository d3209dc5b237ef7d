"""What the processes of one run tell each other. With a single process every function is the identity.

All processes must call a function at the same point of the program, as with any collective.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from wbc_jax.errors import UsageError
from wbc_jax.runtime.json_files import dumps_strict

_CHUNK_BYTES = 64 << 20


def is_first() -> bool:
    """Whether this process is the one that reads and writes the run directory and talks to the user."""
    return jax.process_index() == 0


def share_json(value: Any) -> Any:
    """Process 0's JSON value, on every process; what the others pass is ignored."""
    if jax.process_count() == 1:
        return value
    return json.loads(_share_bytes(dumps_strict(value).encode() if is_first() else b""))


def share_arrays(named: Mapping[str, np.ndarray] | None) -> dict[str, np.ndarray]:
    """Process 0's host arrays by name, bit for bit, on every process; the others pass None."""
    if jax.process_count() == 1:
        return dict(named or {})
    # As bytes: the broadcast is a sum with zeros, which turns -0.0 into 0.0. In one piece: each size is compiled.
    arrays = {} if named is None else {name: np.asarray(array) for name, array in named.items()}
    facts = share_json({name: [array.dtype.name, list(array.shape)] for name, array in arrays.items()})
    data = bytearray(_share_bytes(b"".join(array.tobytes() for array in arrays.values())))
    shared, start = {}, 0
    for name, (dtype, shape) in facts.items():
        count = math.prod(shape)
        shared[name] = np.frombuffer(data, np.dtype(dtype), count, start).reshape(shape)
        start += shared[name].nbytes
    return shared


def share_tree(tree: Any) -> Any:
    """Process 0's leaves, as host arrays, in a tree that has the same structure, shapes and types on every process."""
    if jax.process_count() == 1:
        return tree
    leaves, structure = jax.tree.flatten(tree)
    named = {str(index): np.asarray(leaf) for index, leaf in enumerate(leaves)} if is_first() else None
    return jax.tree.unflatten(structure, share_arrays(named).values())


def agree(flag: bool) -> bool:
    """Whether `flag` holds on every process."""
    return bool(gather_numbers(int(flag)).min())


def gather_numbers(number: int) -> np.ndarray:
    """The number that each process passes, int32 `(processes,)`."""
    if jax.process_count() == 1:
        return np.array([number], np.int32)
    return multihost_utils.process_allgather(np.int32(number))


def require_same(what: str, value: str, remedy: str) -> None:
    """Every process must pass the same value as process 0.

    Raises:
        UsageError: on every process, naming those that differ.
    """
    expected = share_json(value)
    different = np.flatnonzero(gather_numbers(int(value != expected)))
    if len(different):
        raise UsageError(
            f"{what} of process {', '.join(map(str, different))} differs from that of process 0",
            expected=f"{expected[:200]}; this process has {value[:200]}",
            remedy=remedy,
        )


def _share_bytes(data: bytes) -> bytes:
    size = int.from_bytes(_broadcast(np.frombuffer(len(data).to_bytes(8, "big"), np.uint8)).tobytes(), "big")
    parts = []
    for start in range(0, size, _CHUNK_BYTES):
        stop = min(start + _CHUNK_BYTES, size)
        part = np.frombuffer(data[start:stop], np.uint8) if is_first() else np.zeros(stop - start, np.uint8)
        parts.append(_broadcast(part).tobytes())
    return b"".join(parts)


def _broadcast(array: np.ndarray) -> np.ndarray:
    return multihost_utils.broadcast_one_to_all(array)

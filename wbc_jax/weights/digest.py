"""A digest of a network's arrays: the same for the same values, wherever they were read from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from wbc_jax.weights.merge import flatten


def variables_digest(variables: Mapping[str, Any]) -> str:
    """SHA-256 over names, types, shapes and values of all leaves, 64 hex digits; their order does not matter."""
    sha = hashlib.sha256()
    for name, leaf in sorted(flatten(variables).items()):
        array = np.ascontiguousarray(leaf)
        sha.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        sha.update(array.tobytes())
    return sha.hexdigest()

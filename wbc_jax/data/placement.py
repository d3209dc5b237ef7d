"""Host arrays on the devices of one or several processes. [pure]"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np


def place(array: Any, sharding: jax.sharding.Sharding | None) -> jax.Array:
    """An array that every process knows whole, laid out as `sharding` says, without communication.

    With one process it may share memory with its source.

    Args:
        array: host array, or an array on this process's devices; equal on all processes.
        sharding: of the global array; None: the default device.
    """
    if sharding is None or sharding.is_fully_addressable:
        return jax.device_put(array, sharding)
    whole = np.asarray(array)
    # Copies: a shard may be donated, and must not write into the source or into a neighbour's shard.
    return jax.make_array_from_callback(whole.shape, sharding, lambda index: np.array(whole[index]))

"""States and comparisons that the checkpoint tests share."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct


@struct.dataclass
class State:
    step: Any
    params: Any
    batch_stats: Any
    opt_state: Any
    ema_params: Any
    ema_batch_stats: Any


@functools.cache
def make_state(seed: int = 0, *, ema: bool = False, width: int = 8) -> State:
    """A state like that of training: real RAdam state after one update, None where no average is kept."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    params = {
        "conv0": {"kernel": normal(3, 3, 3, width)},
        "head": {"kernel": normal(width, 5), "bias": normal(5)},
        "empty": normal(0, 4),
    }
    stats = {
        "bn0": {"mean": normal(width), "var": jnp.asarray(np.full(width, np.nan, np.float32))},
        "half": normal(width).astype(jnp.bfloat16),
    }
    with jax.numpy_dtype_promotion("standard"):  # Optax's RAdam mixes its step counter with floats
        updated, opt_state = _first_update(params)
    return State(
        step=jnp.asarray(seed, jnp.int32),
        params=updated,
        batch_stats=stats,
        opt_state=opt_state,
        ema_params=params if ema else None,
        ema_batch_stats=jax.tree.map(lambda leaf: leaf * 2, stats) if ema else None,
    )


@jax.jit
def _first_update(params: Any) -> tuple[Any, Any]:
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.radam(1e-3))
    updates, opt_state = tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params), params)
    return optax.apply_updates(params, updates), opt_state


def fingerprint(tree: Any) -> list[tuple[str, str, tuple[int, ...], bytes]]:
    """Every leaf as path, dtype, shape and bytes, so that equality is equality of bits, NaN included."""
    return [
        (jax.tree_util.keystr(path), np.asarray(leaf).dtype.name, np.shape(leaf), np.asarray(leaf).tobytes())
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]


def abstract(tree: Any, sharding: Any = None) -> Any:
    """The tree's shapes and dtypes, on a sharding."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)

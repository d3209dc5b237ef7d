"""States and comparisons that the checkpoint tests share."""

from __future__ import annotations

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


def make_state(seed: int = 0, *, ema: bool = False, width: int = 8) -> State:
    """A state like that of training: real RAdam state after one update, None where no average is kept."""
    keys = iter(jax.random.split(jax.random.key(seed), 4))
    params = {
        "conv0": {"kernel": jax.random.normal(next(keys), (3, 3, 3, width))},
        "head": {"kernel": jax.random.normal(next(keys), (width, 5)), "bias": jnp.zeros((5,))},
        "empty": jnp.zeros((0, 4)),
    }
    stats = {
        "bn0": {
            "mean": jax.random.normal(next(keys), (width,)),
            "var": jnp.full((width,), np.float32(np.nan)),
        },
        "half": jax.random.normal(next(keys), (width,), jnp.bfloat16),
    }
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.radam(1e-3))
    with jax.numpy_dtype_promotion("standard"):  # Optax's RAdam mixes its step counter with floats
        updates, opt_state = tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params), params)
    return State(
        step=jnp.asarray(seed, jnp.int32),
        params=optax.apply_updates(params, updates),
        batch_stats=stats,
        opt_state=opt_state,
        ema_params=params if ema else None,
    )


def fingerprint(tree: Any) -> list[tuple[str, str, tuple[int, ...], bytes]]:
    """Every leaf as path, dtype, shape and bytes, so that equality is equality of bits, NaN included."""
    return [
        (jax.tree_util.keystr(path), np.asarray(leaf).dtype.name, np.shape(leaf), np.asarray(leaf).tobytes())
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]


def abstract(tree: Any, sharding: Any = None) -> Any:
    """The tree's shapes and dtypes, on a sharding."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)

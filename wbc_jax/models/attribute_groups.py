"""The 31 attribute logits as 11 groups, one a WBCAtt attribute, side by side in `catalog.ATTRIBUTES` order."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp

from wbc_jax.catalog import ATTRIBUTES

GROUP_SIZES: tuple[int, ...] = tuple(len(attribute.values) for attribute in ATTRIBUTES)
"""Values of each attribute: (2, 2, 6, 2, 2, 2, 2, 3, 4, 4, 2)."""

TOTAL: int = sum(GROUP_SIZES)
"""31."""

_ENDS = tuple(itertools.accumulate(GROUP_SIZES))
GROUP_SLICES: tuple[slice, ...] = tuple(
    slice(end - size, end) for end, size in zip(_ENDS, GROUP_SIZES, strict=True)
)
"""Where each attribute's values lie among the 31."""


def split_groups(values: jax.Array) -> list[jax.Array]:
    """(..., 31) -> eleven arrays (..., n)."""
    return [values[..., part] for part in GROUP_SLICES]


def group_softmax(logits: jax.Array) -> jax.Array:
    """Probabilities within each attribute, float32 (..., 31)."""
    parts = [jax.nn.softmax(part.astype(jnp.float32), axis=-1) for part in split_groups(logits)]
    return jnp.concatenate(parts, axis=-1)


def group_log_softmax(logits: jax.Array) -> jax.Array:
    """Log-probabilities within each attribute, float32 (..., 31)."""
    parts = [jax.nn.log_softmax(part.astype(jnp.float32), axis=-1) for part in split_groups(logits)]
    return jnp.concatenate(parts, axis=-1)


def group_argmax(logits: jax.Array) -> jax.Array:
    """Most probable value of each attribute, int32 (..., 11)."""
    return jnp.stack([jnp.argmax(part, axis=-1).astype(jnp.int32) for part in split_groups(logits)], axis=-1)


def group_one_hot(values: jax.Array) -> jax.Array:
    """int (..., 11) -> float32 (..., 31); an absent attribute, -1, is a group of zeros."""
    parts = [
        jax.nn.one_hot(values[..., index], size, dtype=jnp.float32) for index, size in enumerate(GROUP_SIZES)
    ]
    return jnp.concatenate(parts, axis=-1)

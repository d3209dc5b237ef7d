"""Sums over all but channels of (B, H, W, C), in a form that a CPU computes at the speed of its memory.

XLA's own reduction over leading axes runs at a tenth of that on a CPU: it is cut into passes of reduce-window. A loop
over blocks of a few rows, which adds each block to one accumulator per image and channel, is vectorised over
channels and reads every value once.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from wbc_jax.models.lowerings import form_of

Terms = Callable[..., tuple[jax.Array, ...]]
"""float32 blocks (B, P, C), one of each map -> the terms to be summed, float32 (B, P, C)."""

_LARGEST_BLOCK = 28
"""Pixels per block: beyond, the inner sum is no longer unrolled and takes three times as long."""
_SMALLEST_BLOCK = 4
_WORTH_A_LOOP = 2**16
"""Elements of a map from which the loop saves more than its start costs."""


def channel_sums(terms: Terms, *maps: jax.Array) -> tuple[jax.Array, ...]:
    """Sum each of `terms(*maps)` over batch and pixels, float32 (C,).

    Args:
        terms: applied pixel by pixel, to all pixels at once or to a block of them.
        maps: (B, H, W, C), all of one shape, any float dtype.
    """
    batch, height, width, channels = maps[0].shape
    pixels = height * width
    rows = tuple(x.reshape(batch, pixels, channels) for x in maps)  # (B, H W, C)
    block = _block(pixels)
    if form_of("channel_sums") != "blocked" or block is None or maps[0].size < _WORTH_A_LOOP:
        return tuple(jnp.sum(term, axis=(0, 1)) for term in terms(*_wide(rows)))

    def add_block(index: jax.Array, sums: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        cut = tuple(jax.lax.dynamic_slice_in_dim(x, index * block, block, axis=1) for x in rows)
        return tuple(s + jnp.sum(t, axis=1) for s, t in zip(sums, terms(*_wide(cut)), strict=True))

    count = len(jax.eval_shape(lambda *rows: terms(*_wide(rows)), *rows))
    zeros = tuple(jnp.zeros((batch, channels), jnp.float32) for _ in range(count))
    # The batch stays an axis of the accumulators, so that a batch spread over devices is summed where it lies.
    per_image = jax.lax.fori_loop(0, pixels // block, add_block, zeros)
    return tuple(jnp.sum(s, axis=0) for s in per_image)


def _wide(maps: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    return tuple(x.astype(jnp.float32) for x in maps)


def _block(pixels: int) -> int | None:
    """Largest divisor of the number of pixels within the bounds; None where there is none."""
    fitting = [size for size in range(_SMALLEST_BLOCK, _LARGEST_BLOCK + 1) if pixels % size == 0]
    return max(fitting, default=None)

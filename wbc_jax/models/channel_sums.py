"""Sums over leading axes, as over the pixels of (B, H, W, C), at the speed of a CPU's memory.

XLA's own reduction over leading axes runs at a tenth of that on a CPU: it is cut into passes of reduce-window. A loop
whose every step adds a few short runs of pixels to one accumulator each is vectorised over channels, reads every
value once, and is spread over the cores when its steps are long enough.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from wbc_jax.models.lowerings import form_of

Terms = Callable[..., tuple[jax.Array, ...]]
"""float32 blocks of pixels, one of each map, channels last -> the terms to be summed, float32, shaped as the blocks."""

_LONGEST_RUN = 14
"""Pixels added one after the other: beyond, the sum runs out of registers, then is no longer unrolled."""
_SHORTEST_RUN = 4
_STEP_SIZE = 2**17
"""Elements of a map that one step reads at most: every term is a pass over them, which the cores' caches have to hold
for the next. XLA leaves steps of half of that to one core."""
_WORTH_A_LOOP = 2**16
"""Elements of a map from which the loop saves more than its start costs."""


def channel_sums(terms: Terms, *maps: jax.Array) -> tuple[jax.Array, ...]:
    """Sum each of `terms(*maps)` over batch and pixels, float32 (C,).

    Args:
        terms: applied pixel by pixel, to all pixels at once or to a part of them.
        maps: (B, H, W, C), all of one shape, any float dtype.
    """
    if form_of("channel_sums") != "blocked":
        return tuple(jnp.sum(term, axis=(0, 1, 2)) for term in terms(*_wide(maps)))
    return tuple(jnp.sum(total, axis=0) for total in image_sums(terms, *maps))


def image_sums(terms: Terms, *maps: jax.Array) -> tuple[jax.Array, ...]:
    """Sum each of `terms(*maps)` over the pixels of every image, float32 (B, C); arguments as of `channel_sums`."""
    batch, height, width, channels = maps[0].shape
    pixels = height * width
    known = isinstance(batch, int)  # not in a program that is exported for batches of any size
    cut = _cut(batch, pixels, channels) if known and form_of("channel_sums") == "blocked" else None
    if cut is None or maps[0].size < _WORTH_A_LOOP:
        rows = tuple(x.reshape(batch, pixels, channels) for x in maps)
        return tuple(jnp.sum(term, axis=1) for term in terms(*_wide(rows)))
    runs, length = cut
    # The batch stays an axis of its own, so that a batch spread over devices is summed where it lies.
    rows = tuple(x.reshape(batch, pixels // length, length, channels) for x in maps)  # (B, R, L, C)

    def add_step(index: jax.Array, sums: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        parts = tuple(jax.lax.dynamic_slice_in_dim(x, index * runs, runs, axis=1) for x in rows)
        added = terms(*(x.reshape(batch, runs * length, channels) for x in _wide(parts)))
        split = (batch, runs, length, channels)
        return tuple(s + jnp.sum(t.reshape(split), axis=2) for s, t in zip(sums, added, strict=True))

    pixel = jax.ShapeDtypeStruct((batch, 1, channels), jnp.float32)
    count = len(jax.eval_shape(terms, *(pixel for _ in maps)))
    zeros = tuple(jnp.zeros((batch, runs, channels), jnp.float32) for _ in range(count))
    totals = jax.lax.fori_loop(0, pixels // (runs * length), add_step, zeros)
    return tuple(jnp.sum(s, axis=1) for s in totals)


def square_sum(x: jax.Array) -> jax.Array:
    """Sum of the squares of an array of any shape, float32 ()."""
    if x.ndim < 2:
        return jnp.sum(jnp.square(x.astype(jnp.float32)))
    rows = x.reshape(1, 1, -1, x.shape[-1])
    return jnp.sum(image_sums(lambda block: (jnp.square(block),), rows)[0])


def _wide(maps: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    return tuple(x.astype(jnp.float32) for x in maps)


def _cut(batch: int, pixels: int, channels: int) -> tuple[int, int] | None:
    """Runs that a step adds and pixels of a run, so that two steps or more make the whole; None: no such numbers."""
    lengths = [n for n in range(_SHORTEST_RUN, _LONGEST_RUN + 1) if pixels % n == 0]
    if not lengths or max(lengths) == pixels:
        return None
    length = max(lengths)
    total = pixels // length
    fitting = [n for n in range(2, total) if total % n == 0 and batch * n * length * channels <= _STEP_SIZE]
    return max(fitting, default=1), length

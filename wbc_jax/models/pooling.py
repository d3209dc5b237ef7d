"""Pooling over windows and over whole maps, with gradients that a CPU computes in few passes."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from wbc_jax.models.channel_sums import image_sums
from wbc_jax.models.lowerings import form_of
from wbc_jax.models.stored import stored


def max_pool(x: jax.Array, *, size: int = 3, stride: int = 2, padding: int = 1) -> jax.Array:
    """Maximum over windows of (B, H, W, C), padded with -inf on both sides as torch does.

    The gradient goes to the first maximum of a window, rows before columns.
    """
    if (size, stride, padding) == (3, 2, 1) and form_of("max_pool") == "parity":
        return _halve(x)
    pads = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    lowest = np.asarray(-np.inf, x.dtype)
    return jax.lax.reduce_window(x, lowest, jax.lax.max, (1, size, size, 1), (1, stride, stride, 1), pads)


def global_average_pool(x: jax.Array) -> jax.Array:
    """Mean over positions: (B, H, W, C) -> float32 (B, C)."""
    if form_of("channel_sums") == "blocked":
        return _pixel_sums(x) / (x.shape[1] * x.shape[2])
    return jnp.mean(x.astype(jnp.float32), axis=(1, 2))


@jax.custom_vjp
def _pixel_sums(x: jax.Array) -> jax.Array:
    """(B, H, W, C) -> float32 (B, C)."""
    (total,) = image_sums(lambda block: (block,), x)
    return total


def _pixel_sums_forward(x: jax.Array):
    return _pixel_sums(x), x  # of x its shape alone is read


def _pixel_sums_backward(x: jax.Array, cotangent: jax.Array):
    return (jnp.broadcast_to(cotangent.astype(x.dtype)[:, None, None, :], x.shape),)


_pixel_sums.defvjp(_pixel_sums_forward, _pixel_sums_backward)


def maximum_along(x: jax.Array, axis: int) -> jax.Array:
    """Maximum along one axis, which falls away; the gradient goes to the first element that holds it.

    The gradient of `jnp.max` asks which elements equal the maximum. XLA may compute x a second time for that, rounded
    otherwise: then none does, and the gradient is 0 / 0. A position does not depend on rounding twice.
    """
    return _maximum(x, axis)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _maximum(x: jax.Array, axis: int) -> jax.Array:
    return jnp.max(x, axis=axis)


def _maximum_forward(x: jax.Array, axis: int):
    return jnp.max(x, axis=axis), (jnp.argmax(x, axis=axis), x.shape)


def _maximum_backward(axis: int, kept, cotangent: jax.Array):
    position, shape = kept
    positions = jax.lax.broadcasted_iota(position.dtype, shape, axis % len(shape))
    chosen = positions == jnp.expand_dims(position, axis)
    wide = jnp.broadcast_to(jnp.expand_dims(cotangent, axis), shape)
    return (jnp.where(chosen, wide, jnp.zeros((), cotangent.dtype)),)


_maximum.defvjp(_maximum_forward, _maximum_backward)


@jax.custom_vjp
def _halve(x: jax.Array) -> jax.Array:
    """3x3 windows, stride 2, padded by 1: window o covers rows 2o - 1 to 2o + 1."""
    return functools.reduce(jnp.maximum, _window_positions(x))


def _forward(x: jax.Array):
    y = _halve(x)
    return y, (x, y)


def _backward(kept, cotangent: jax.Array):
    x, y = kept
    batch, height, width, channels = x.shape
    # Each is read nine times, once for every position of a window.
    first, cotangent = stored(_first_maximum(x, y)), stored(cotangent)  # (B, H / 2, W / 2, C)

    def share(position: int) -> jax.Array:
        """What windows send to the pixel at that position of theirs, counted 0 to 8 by rows."""
        return jnp.where(first == position, cotangent, jnp.zeros((), cotangent.dtype))

    def next_row(share: jax.Array) -> jax.Array:
        return jnp.pad(share[:, 1:], ((0, 0), (0, 1), (0, 0), (0, 0)))

    def next_column(share: jax.Array) -> jax.Array:
        return jnp.pad(share[:, :, 1:], ((0, 0), (0, 0), (0, 1), (0, 0)))

    # A pixel in an even row is the middle row of one window; in an odd row it is the last of one, the first of the
    # next. So pixels fall into four kinds by the parity of their row and column.
    even = share(4), share(5) + next_column(share(3))
    odd = share(7) + next_row(share(1)), _corner_sum(share, next_row, next_column)
    rows = [jnp.stack(pair, axis=3).reshape(batch, *y.shape[1:2], -1, channels) for pair in (even, odd)]
    d_x = jnp.stack(rows, axis=2).reshape(batch, -1, rows[0].shape[2], channels)  # (B, 2 H', 2 W', C)
    return (d_x[:, :height, :width],)


def _corner_sum(share, next_row, next_column) -> jax.Array:
    above = share(8) + next_column(share(6))
    return above + next_row(share(2) + next_column(share(0)))


def _window_positions(x: jax.Array) -> Iterator[jax.Array]:
    """What the windows of `_halve` hold at each of their nine positions, by rows: (B, H', W', C)."""
    height, width = ((side + 1) // 2 for side in x.shape[1:3])
    # Enough padding below and right for odd and even sizes alike.
    padded = jnp.pad(x, ((0, 0), (1, 2), (1, 2), (0, 0)), constant_values=np.asarray(-np.inf, x.dtype))
    for row in range(3):
        for column in range(3):
            yield padded[:, row : row + 2 * height : 2, column : column + 2 * width : 2]


def _first_maximum(x: jax.Array, y: jax.Array) -> jax.Array:
    """int32, shape of y: position in each window, 0 to 8 by rows, of its first maximum; 9 where y is NaN."""
    # Found anew: x may be computed a second time here, rounded otherwise, and equal y nowhere.
    first, largest = jnp.zeros(y.shape, jnp.int32), jnp.full(y.shape, np.asarray(-np.inf, x.dtype))
    for position, value in enumerate(_window_positions(x)):
        larger = value > largest
        first, largest = jnp.where(larger, position, first), jnp.where(larger, value, largest)
    return jnp.where(jnp.isnan(y), 9, first)


_halve.defvjp(_forward, _backward)

"""Depthwise convolution as a sum of shifted products, for backends whose grouped convolution is slow."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator

import jax
import jax.numpy as jnp

Pads = tuple[int, int]
_LANES = 8
_FEW_ROWS = 512


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def shifted_products(x: jax.Array, kernel: jax.Array, stride: int, padding: Pads) -> jax.Array:
    """Cross-correlate every channel with its own window.

    For each element of the window, the map is shifted by its place, thinned by the stride and multiplied by one
    number per channel: elementwise operations, which the compiler fuses into one pass.

    Args:
        x: (B, H, W, C).
        kernel: (kh, kw, 1, C), same dtype.
        stride: pixels, both axes.
        padding: zeros added above and below, left and right.

    Returns:
        (B, H', W', C) with H' = floor((H + 2 padding - kh) / stride) + 1.
    """
    return _products(x, kernel, stride, padding)


def _products(x: jax.Array, kernel: jax.Array, stride: int, padding: Pads) -> jax.Array:
    taps = kernel.reshape(-1, kernel.shape[-1])
    products = (
        part * tap[None, None, None, :]
        for part, tap in zip(_shifted(x, kernel.shape, stride, padding), taps, strict=True)
    )
    return functools.reduce(operator.add, products)


def _forward(
    x: jax.Array, kernel: jax.Array, stride: int, padding: Pads
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _products(x, kernel, stride, padding), (x, kernel)


def _backward(
    stride: int, padding: Pads, kept: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = kept
    _, pull = jax.vjp(lambda x: _products(x, kernel, stride, padding), x)
    taps = [_sum_positions(part * gradient) for part in _shifted(x, kernel.shape, stride, padding)]
    return pull(gradient)[0], jnp.stack(taps).reshape(kernel.shape).astype(kernel.dtype)


shifted_products.defvjp(_forward, _backward)


def _shifted(x: jax.Array, kernel_shape: tuple[int, ...], stride: int, padding: Pads) -> Iterator[jax.Array]:
    """What each element of the window meets, row by row: (B, H', W', C)."""
    height, width = kernel_shape[:2]
    padded = jnp.pad(x, ((0, 0), *((side, side) for side in padding), (0, 0)))
    rows, columns = (padded.shape[1] - height) // stride, (padded.shape[2] - width) // stride
    for top in range(height):
        for left in range(width):
            yield padded[
                :, top : top + rows * stride + 1 : stride, left : left + columns * stride + 1 : stride, :
            ]


def _sum_positions(x: jax.Array) -> jax.Array:
    """(B, H, W, C) -> float32 (C,), by adding eighths to one another until few rows are left.

    XLA:CPU fuses a product into the sum over positions and then walks through the map once per channel, with a
    stride of C; added elementwise the map is read in order. The barrier keeps the next round out of that loop.
    """
    rows = x.reshape(-1, x.shape[-1]).astype(jnp.float32)  # (N, C)
    total = jnp.zeros(rows.shape[-1], jnp.float32)
    while len(rows) > _FEW_ROWS:
        part, rest = divmod(len(rows), _LANES)
        total = total + jnp.sum(rows[len(rows) - rest :], axis=0)
        lanes = [rows[lane * part : (lane + 1) * part] for lane in range(_LANES)]
        rows = jax.lax.optimization_barrier(functools.reduce(operator.add, lanes))
    return total + jnp.sum(rows, axis=0)

"""Convolution with a stride whose map gradient is taken apart by the parity of its pixels.

XLA convolves a cotangent with zeros between its pixels: of stride x stride products all but one are zeros. Pixels of
one residue of (row, column) modulo the stride read the same part of the kernel, without zeros.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from wbc_jax.models.native import Edges, Pads, native_convolution


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def strided_convolution(x: jax.Array, kernel: jax.Array, stride: int, pads: Pads) -> jax.Array:
    """(B, H, W, C), (kh, kw, C, F) -> (B, H', W', F)."""
    return native_convolution(x, kernel, stride, pads)


def _forward(x: jax.Array, kernel: jax.Array, stride: int, pads: Pads):
    return native_convolution(x, kernel, stride, pads), (x, kernel)


def _backward(stride: int, pads: Pads, kept, cotangent: jax.Array):
    x, kernel = kept
    _, pull_kernel = jax.vjp(lambda kernel: native_convolution(x, kernel, stride, pads), kernel)
    d_x = strided_map_gradient(cotangent, kernel, stride, pads, x.shape[1:3], _turned)
    return d_x, *pull_kernel(cotangent)


strided_convolution.defvjp(_forward, _backward)


def _turned(y: jax.Array, kernel: jax.Array, edges: Edges) -> jax.Array:
    """(B, H', W', F), (kh, kw, C, F) -> (B, H, W, C)."""
    turned = kernel[::-1, ::-1].swapaxes(2, 3)  # (kh, kw, F, C)
    return jax.lax.conv_general_dilated(y, turned, (1, 1), edges, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def strided_map_gradient(
    cotangent: jax.Array,
    kernel: jax.Array,
    stride: int,
    pads: Pads,
    size: tuple[int, int],
    turned: Callable[[jax.Array, jax.Array, Edges], jax.Array],
) -> jax.Array:
    """The gradient of the map, a part for each residue of its pixels.

    Args:
        cotangent: (B, H', W', F).
        kernel: (kh, kw, C / groups, F).
        stride: of the convolution, pixels.
        pads: zeros on each side, (height, width).
        size: (H, W).
        turned: `(y, kernel, edges)` -> the convolution, of stride 1, from the outputs of a kernel to its inputs, its
            rows and columns reversed, with zeros (before, after) along (height, width) at the edges.

    Returns:
        (B, H, W, C).
    """
    rows, columns = (-(-side // stride) for side in size)

    def of_residue(row: int, column: int) -> jax.Array:
        """The gradient of the pixels (row, column) + stride (n, m): (B, rows, columns, C), or 0."""
        starts = [(pad + first) % stride for pad, first in zip(pads, (row, column), strict=True)]
        part = kernel[starts[0] :: stride, starts[1] :: stride]
        if not part.size:
            return jnp.zeros((), cotangent.dtype)
        edges = []
        for axis, (first, side) in enumerate(zip((row, column), (rows, columns), strict=True)):
            taps, outputs = part.shape[axis], cotangent.shape[axis + 1]
            before = (starts[axis] - pads[axis] - first) // stride + taps - 1
            edges.append((before, side - outputs - before + taps - 1))
        return turned(cotangent, part, (edges[0], edges[1]))

    residues = [of_residue(row, column) for row in range(stride) for column in range(stride)]
    lines = jnp.split(jnp.stack(jnp.broadcast_arrays(*residues), axis=3), stride, axis=3)
    apart = jnp.stack(lines, axis=2)  # (B, rows, s, columns, s, C)
    whole = apart.reshape(cotangent.shape[0], rows * stride, columns * stride, -1)
    return whole[:, : size[0], : size[1]]

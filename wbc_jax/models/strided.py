"""Convolution with a stride whose map gradient is taken apart by the parity of its pixels.

XLA convolves a cotangent with zeros between its pixels: of stride x stride products all but one are zeros. Pixels of
one residue of (row, column) modulo the stride read the same part of the kernel, without zeros.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from wbc_jax.models.native import Pads, native_convolution


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def strided_convolution(x: jax.Array, kernel: jax.Array, stride: int, pads: Pads) -> jax.Array:
    """(B, H, W, C), (kh, kw, C, F) -> (B, H', W', F)."""
    return native_convolution(x, kernel, stride, pads)


def _forward(x: jax.Array, kernel: jax.Array, stride: int, pads: Pads):
    return native_convolution(x, kernel, stride, pads), (x, kernel)


def _backward(stride: int, pads: Pads, kept, cotangent: jax.Array):
    x, kernel = kept
    _, pull_kernel = jax.vjp(lambda kernel: native_convolution(x, kernel, stride, pads), kernel)
    return _map_gradient(cotangent, kernel, stride, pads, x.shape[1:3]), *pull_kernel(cotangent)


strided_convolution.defvjp(_forward, _backward)


def _map_gradient(
    cotangent: jax.Array, kernel: jax.Array, stride: int, pads: Pads, size: tuple[int, int]
) -> jax.Array:
    """(B, H', W', F) -> (B, *size, C)."""
    rows, columns = (-(-side // stride) for side in size)
    residues = [
        [
            _of_residue(cotangent, kernel, stride, pads, (rows, columns), (row, column))
            for column in range(stride)
        ]
        for row in range(stride)
    ]
    apart = jnp.stack([jnp.stack(line, axis=3) for line in residues], axis=2)  # (B, rows, s, columns, s, C)
    whole = apart.reshape(cotangent.shape[0], rows * stride, columns * stride, kernel.shape[2])
    return whole[:, : size[0], : size[1]]


def _of_residue(
    cotangent: jax.Array,
    kernel: jax.Array,
    stride: int,
    pads: Pads,
    size: tuple[int, int],
    residue: tuple[int, int],
) -> jax.Array:
    """The gradient of the pixels `residue` + stride (row, column): (B, *size, C)."""
    starts = [(pad + first) % stride for pad, first in zip(pads, residue, strict=True)]
    part = kernel[starts[0] :: stride, starts[1] :: stride]
    if not part.size:
        return jnp.zeros((cotangent.shape[0], *size, kernel.shape[2]), cotangent.dtype)
    edges = []
    for axis in (0, 1):
        taps, outputs = part.shape[axis], cotangent.shape[axis + 1]
        before = (starts[axis] - pads[axis] - residue[axis]) // stride + taps - 1
        edges.append((before, size[axis] - outputs - before + taps - 1))
    turned = part[::-1, ::-1].swapaxes(2, 3)  # (kh / s, kw / s, F, C)
    return jax.lax.conv_general_dilated(
        cotangent, turned, (1, 1), edges, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )

"""1x1 convolution as a matrix product, the weight gradient's product laid out as a CPU computes it fastest."""

from __future__ import annotations

import jax

_MANY_PIXELS = 2**10
"""B H W from which the weight gradient's product is taken straight from the pixel-major maps; below, XLA transposes
a map first. Where it computes the map within the transposition, that takes several times as long as the product."""


@jax.custom_vjp
def pointwise(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """(B, H, W, C) and (C, F) -> (B, H, W, F)."""
    return jax.lax.dot_general(x, kernel, (((3,), (0,)), ((), ())))


def _forward(x: jax.Array, kernel: jax.Array):
    return pointwise(x, kernel), (x, kernel)


def _backward(kept, cotangent: jax.Array):
    x, kernel = kept
    d_x = jax.lax.dot_general(cotangent, kernel, (((3,), (1,)), ((), ())))
    if x.size // x.shape[-1] < _MANY_PIXELS:
        # The first operand is the one transposed: the narrower map.
        narrow, wide = (cotangent, x) if cotangent.shape[-1] < x.shape[-1] else (x, cotangent)
        product = jax.lax.dot_general(narrow, wide, (((0, 1, 2), (0, 1, 2)), ((), ())))
        return d_x, product.T if narrow is cotangent else product
    rows, d_rows = x.reshape(-1, x.shape[-1]), cotangent.reshape(-1, cotangent.shape[-1])  # (B H W, C)
    return d_x, jax.lax.dot_general(rows, d_rows, (((0,), (0,)), ((), ())))


pointwise.defvjp(_forward, _backward)

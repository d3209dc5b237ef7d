"""Convolution of a map by a kernel that is larger than the map, as EPSANet's 9x9 on 7x7 pixels.

XLA then exchanges map and kernel, which a CPU computes slowly (`python benchmarks/levers.py --levers large_kernel`). On
a map that was padded beforehand, behind a barrier that keeps XLA from folding the padding back, it does not.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from wbc_jax.models.native import Pads, native_convolution


def exceeds_map(x: jax.Array, kernel: jax.Array, pads: Pads) -> bool:
    """Whether a kernel (kh, kw, C, F) has more places than the result of its convolution of `x` by steps of one pixel.

    The result counts, not `x`: it is the map that the gradient reads.
    """
    height, width = (
        side + 2 * pad - size + 1
        for side, pad, size in zip(x.shape[1:3], pads, kernel.shape[:2], strict=True)
    )
    return kernel.shape[0] * kernel.shape[1] > height * width


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def padded_convolution(x: jax.Array, kernel: jax.Array, pads: Pads) -> jax.Array:
    """(B, H, W, C), (kh, kw, C, F) -> (B, H', W', F), by steps of one pixel."""
    return native_convolution(_padded(x, pads), kernel, 1, (0, 0))


def _forward(x: jax.Array, kernel: jax.Array, pads: Pads):
    return padded_convolution(x, kernel, pads), (x, kernel)


def _backward(pads: Pads, kept, cotangent: jax.Array):
    """The map's gradient is a convolution of the cotangent by the turned kernel."""
    x, kernel = kept
    height, width = (size - 1 - pad for size, pad in zip(kernel.shape[:2], pads, strict=True))
    turned = kernel[::-1, ::-1].swapaxes(2, 3)  # (kh, kw, F, C)
    d_x = native_convolution(_padded(cotangent, (height, width)), turned, 1, (0, 0))
    _, pull_kernel = jax.vjp(lambda kernel: native_convolution(x, kernel, 1, pads), kernel)
    return d_x, *pull_kernel(cotangent)


padded_convolution.defvjp(_forward, _backward)


def _padded(x: jax.Array, pads: Pads) -> jax.Array:
    edges = [(0, 0, 0), (pads[0], pads[0], 0), (pads[1], pads[1], 0), (0, 0, 0)]
    return jax.lax.optimization_barrier(jax.lax.pad(x, jnp.zeros((), x.dtype), edges))

"""Convolution without groups that is neither pointwise nor narrow, in the form that suits the backend and the sizes."""

from __future__ import annotations

import jax

from wbc_jax.models.large_kernel import exceeds_map, padded_convolution
from wbc_jax.models.lowerings import form_of
from wbc_jax.models.native import Pads, native_convolution
from wbc_jax.models.strided import strided_convolution


def plain_convolution(x: jax.Array, kernel: jax.Array, stride: int, pads: Pads) -> jax.Array:
    """(B, H, W, C), (kh, kw, C, F) -> (B, H', W', F)."""
    if stride > 1:
        strided = strided_convolution if form_of("strided") == "parity" else native_convolution
        return strided(x, kernel, stride, pads)
    if form_of("large_kernel") == "padded" and exceeds_map(x, kernel, pads):
        return padded_convolution(x, kernel, pads)
    return native_convolution(x, kernel, stride, pads)

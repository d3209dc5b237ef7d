"""XLA's own convolution, which the other forms are measured against and partly made of."""

from __future__ import annotations

import jax

Pads = tuple[int, int]
"""Zeros on each side, (height, width)."""

Edges = tuple[tuple[int, int], tuple[int, int]]
"""Zeros (before, after) along (height, width)."""


def native_convolution(
    x: jax.Array, kernel: jax.Array, stride: int, pads: Pads, groups: int = 1
) -> jax.Array:
    """(B, H, W, C), (kh, kw, C / groups, F) -> (B, H', W', F)."""
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=[(pads[0], pads[0]), (pads[1], pads[1])],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )

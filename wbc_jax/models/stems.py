"""Forms of an image's first convolution that suit matrix units: more channels, fewer pixels.

Each computes what the plain convolution does, of the same kernel; gradients follow by differentiation. Whether they win
is to be measured on the device at hand (`benchmarks/variants.py`).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from wbc_jax.models.native import Pads, native_convolution

PADDED_CHANNELS = 4


def padded_stem(x: jax.Array, kernel: jax.Array, stride: int, pads: Pads) -> jax.Array:
    """A convolution of three channels as one of four, the fourth zero."""
    missing = PADDED_CHANNELS - x.shape[-1]
    x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, missing)))
    return native_convolution(x, jnp.pad(kernel, ((0, 0), (0, 0), (0, missing), (0, 0))), stride, pads)


def folds(x: jax.Array, kernel: jax.Array, stride: int, pads: Pads) -> bool:
    """Whether `space_to_depth_stem` applies: a 7x7 kernel with stride 2 and padding 3, on even sides."""
    even = x.shape[1] % 2 == 0 and x.shape[2] % 2 == 0
    return kernel.shape[:2] == (7, 7) and stride == 2 and pads == (3, 3) and even


def space_to_depth_stem(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A 7x7 convolution with stride 2 as one of 4x4 with stride 1, on blocks of 2x2 pixels as channels.

    The kernel gets a row and a column of zeros before its first, so that tap t = 2 a + b meets pixel b of block a.

    Args:
        x: (B, H, W, C), H and W even.
        kernel: (7, 7, C, F); padding is 3.
    """
    batch, height, width, channels = x.shape
    blocks = x.reshape(batch, height // 2, 2, width // 2, 2, channels).transpose(0, 1, 3, 2, 4, 5)
    blocks = blocks.reshape(batch, height // 2, width // 2, 4 * channels)  # (B, H / 2, W / 2, 4 C)
    taps = jnp.pad(kernel, ((1, 0), (1, 0), (0, 0), (0, 0))).reshape(4, 2, 4, 2, channels, -1)
    taps = taps.transpose(0, 2, 1, 3, 4, 5).reshape(4, 4, 4 * channels, -1)  # (4, 4, 4 C, F)
    return jax.lax.conv_general_dilated(
        blocks,
        taps,
        window_strides=(1, 1),
        padding=[(2, 1), (2, 1)],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )

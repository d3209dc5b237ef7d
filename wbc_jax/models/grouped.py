"""Grouped convolution as fewer and wider ones: neighbouring groups merge under a block-diagonal kernel.

A group of four channels fills half of a CPU's vector of eight and little of a matrix unit. Merged groups multiply by
zeros in lanes that would be empty. All forms compute the same function of the same grouped kernel.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from wbc_jax.models.native import Pads, native_convolution
from wbc_jax.models.plain import plain_convolution

# Least channels of a merged group on a CPU, chosen among 16 to 256 inputs at the shapes of SE-ResNeXt50 and EPSANet50.
_CPU_INPUTS = 16
_CPU_OUTPUTS = 8


def merged_groups(
    x: jax.Array, kernel: jax.Array, stride: int, pads: Pads, groups: int, channels: int
) -> jax.Array:
    """A grouped convolution of fewer groups, up to `channels` inputs wide; suits matrix units.

    Args:
        x: (B, H, W, C).
        kernel: (kh, kw, C / groups, F).
        stride: pixels, both axes.
        pads: zeros on each side, (height, width).
        groups: of the kernel.
        channels: inputs of a merged group; as many groups are merged as fit and divide their number.
    """
    merged = math.gcd(max(1, channels // kernel.shape[2]), groups)
    return native_convolution(x, _block_diagonal(kernel, groups, merged), stride, pads, groups // merged)


def split_groups(x: jax.Array, kernel: jax.Array, stride: int, pads: Pads, groups: int) -> jax.Array:
    """One plain convolution for each group, narrow groups merged first; arguments as of `merged_groups`.

    On a CPU the gradients of XLA's own grouped convolution take up to a hundred times as long.
    """
    kernel = merge_narrow_groups(kernel, groups, inputs=_CPU_INPUTS, outputs=_CPU_OUTPUTS)
    parts = x.shape[-1] // kernel.shape[2]
    pairs = zip(jnp.split(x, parts, axis=-1), jnp.split(kernel, parts, axis=-1), strict=True)
    return jnp.concatenate([plain_convolution(part, k, stride, pads) for part, k in pairs], axis=-1)


def merge_narrow_groups(kernel: jax.Array, groups: int, *, inputs: int, outputs: int) -> jax.Array:
    """The kernel of as many merged groups as give each at least so many inputs and outputs."""
    narrow = max(inputs / kernel.shape[2], outputs * groups / kernel.shape[3])
    merged = min((m for m in range(1, groups + 1) if groups % m == 0 and m >= narrow), default=groups)
    return _block_diagonal(kernel, groups, merged)


def _block_diagonal(kernel: jax.Array, groups: int, merged: int) -> jax.Array:
    """(kh, kw, C / groups, F) -> (kh, kw, merged C / groups, F): each output reads its own group, and zeros."""
    if merged == 1:
        return kernel
    height, width, inputs, outputs = kernel.shape
    apart = kernel.reshape(height * width, inputs, groups // merged, merged, outputs // groups)
    block = jnp.eye(merged, dtype=kernel.dtype)
    wide = apart[:, None] * block[None, :, None, None, :, None]  # (kh kw, merged, inputs, parts, merged, f)
    return wide.reshape(height, width, merged * inputs, outputs)

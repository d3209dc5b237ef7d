"""Pyramid squeeze attention (EPSANet, Zhang et al. 2021, murufeng/EPSANet)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from wbc_jax.models.attention import REDUCTION, scale_channels
from wbc_jax.models.initialisers import kaiming_fan_out
from wbc_jax.models.layers import Conv, Linear, global_average_pool

KERNEL_SIZES: tuple[int, ...] = (3, 5, 7, 9)


class PyramidSqueezeAttention(nn.Module):
    """Four convolutions of growing kernels side by side, each channel weighed against its three counterparts.

    Branch b maps C -> C / 4 with kernel 3, 5, 7 or 9. One SE gate, shared by the four, weighs each branch map; a
    softmax over the branches after its sigmoid makes the four weights of a channel add up to 1. Neither norm nor
    activation is inside. Branches are concatenated in the order 3, 5, 7, 9, where the author's loop ends with
    9, 7, 5, 3: that permutes the channels of the layer behind and matters only to ported weights.
    """

    stride: int = 1
    groups: tuple[int, ...] = (1, 4, 8, 16)
    """Groups of the four convolutions."""
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        batch, channels = x.shape[0], x.shape[-1]
        width, branches = channels // len(KERNEL_SIZES), len(KERNEL_SIZES)
        maps = [
            Conv(
                width,
                size,
                self.stride,
                size // 2,
                groups,
                kernel_init=kaiming_fan_out,
                dtype=self.dtype,
                name=f"conv{size}",
            )(x)
            for size, groups in zip(KERNEL_SIZES, self.groups, strict=True)
        ]
        y = jnp.concatenate(maps, axis=-1)  # (B, H / stride, W / stride, C)
        pooled = global_average_pool(y).reshape(batch * branches, width)  # (4B, C / 4)
        hidden = Linear(max(width // REDUCTION, 1), kernel_init=kaiming_fan_out, name="squeeze")(pooled)
        gate = nn.sigmoid(Linear(width, kernel_init=kaiming_fan_out, name="excite")(nn.relu(hidden)))
        weights = nn.softmax(gate.reshape(batch, branches, width), axis=1)  # (B, 4, C / 4)
        return scale_channels(y, weights.reshape(batch, channels))

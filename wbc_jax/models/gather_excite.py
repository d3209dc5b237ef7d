"""Gather-excite gates (Hu et al. 2018, hujie-frank/GENet; finite extents as timm generalises them)."""

from __future__ import annotations

import math
from typing import Any, Literal, cast

import jax
import jax.numpy as jnp
from flax import linen as nn

from wbc_jax.models.attention import REDUCTION
from wbc_jax.models.initialisers import kaiming_fan_in
from wbc_jax.models.layers import BatchNorm, Conv, Linear, global_average_pool

GatherKind = Literal["theta_minus", "theta", "theta_plus"]
GatherExtent = Literal["global", "2", "4", "8"]


class GatherExcite(nn.Module):
    """A gate in (0, 1) for each channel, constant over the extent that its evidence was gathered from.

    `theta_minus` gathers by averaging and has no parameters; `theta` by depthwise convolutions, each with BatchNorm;
    `theta_plus` adds a ReLU and two 1x1 convolutions with C / 16 channels between. Result float32 (B, 1, 1, C) for
    the global extent, which for theta fixes the size of the map at `init`, else (B, H, W, C).
    """

    kind: GatherKind = "theta"
    extent: GatherExtent = "global"
    """Side of the region gathered over, in positions of the map."""
    bn_axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, use_running_average: bool) -> jax.Array:
        wide = x.astype(jnp.float32)
        gathered = (
            self._average(wide) if self.kind == "theta_minus" else self._convolve(wide, use_running_average)
        )
        if self.kind == "theta_plus":
            channels, rows = x.shape[-1], gathered.reshape(-1, x.shape[-1])
            hidden = nn.relu(Linear(max(channels // REDUCTION, 1), name="squeeze")(nn.relu(rows)))
            gathered = Linear(channels, name="excite")(hidden).reshape(gathered.shape)
        return nn.sigmoid(
            gathered if self.extent == "global" else nearest(gathered, (x.shape[1], x.shape[2]))
        )

    def _average(self, x: jax.Array) -> jax.Array:
        if self.extent == "global":
            return global_average_pool(x)[:, None, None, :]  # (B, 1, 1, C)
        extent = int(self.extent)
        size, pads = 2 * extent - 1, cast(Any, [(extent - 1, extent - 1)] * 2)
        window, strides = (size, size), (extent, extent)
        return nn.avg_pool(x, window, strides, pads, count_include_pad=False)  # (B, H / e, W / e, C)

    def _convolve(self, x: jax.Array, use_running_average: bool) -> jax.Array:
        def norm(y: jax.Array, name: str) -> jax.Array:
            bn = BatchNorm(axis_name=self.bn_axis_name, name=name)
            return bn(y, use_running_average=use_running_average)

        channels = x.shape[-1]
        if self.extent == "global":
            # A depthwise kernel as large as the map has one position: a weighted sum.
            kernel = self.param("kernel", kaiming_fan_in, (*x.shape[1:3], 1, channels), jnp.float32)
            summed = jnp.einsum("bhwc,hwc->bc", x, kernel[:, :, 0, :])[:, None, None, :]  # (B, 1, 1, C)
            return norm(summed, "bn")
        steps = int(math.log2(int(self.extent)))
        for step in range(1, steps + 1):
            conv = Conv(channels, 3, 2, 1, channels, kernel_init=kaiming_fan_in, name=f"conv{step}")
            x = norm(conv(x), f"bn{step}")  # (B, H / 2, W / 2, C)
            x = nn.relu(x) if step < steps else x
        return x


def nearest(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """x (B, h, w, C) enlarged to (B, H, W, C): position i shows floor(i h / H), as torch does."""
    height, width = size
    rows = jnp.arange(height) * x.shape[1] // height
    columns = jnp.arange(width) * x.shape[2] // width
    return x[:, rows][:, :, columns]

"""Dual path networks (Chen et al. 2017, cypw/DPNs) as timm builds them: a norm and ReLU before each convolution.

timm's definition asks for ELU behind the last norm, but what it builds there, and so what its weights were measured
with, is ReLU.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from wbc_jax.models.endpoints import Endpoints, record
from wbc_jax.models.layers import BatchNorm, Conv, Linear, check_images, global_average_pool, max_pool
from wbc_jax.models.zoo.units import ConvNorm

EPSILON = 1e-3


class _NormConv(nn.Module):
    """BatchNorm, ReLU, convolution: parameters `bn/scale`, `bn/bias`, `conv/kernel`."""

    features: int
    kernel_size: int = 1
    stride: int = 1
    groups: int = 1
    dtype: DTypeLike = jnp.float32
    bn_axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, use_running_average: bool) -> jax.Array:
        bn = BatchNorm(epsilon=EPSILON, axis_name=self.bn_axis_name, dtype=self.dtype, name="bn")
        conv = Conv(
            self.features,
            self.kernel_size,
            self.stride,
            self.kernel_size // 2,
            self.groups,
            dtype=self.dtype,
            name="conv",
        )
        return conv(nn.relu(bn(x, use_running_average=use_running_average)))


class _DualPathBlock(nn.Module):
    """Bottleneck whose output is split: the first channels add to the residual path, the rest widens the dense one.

    x is the residual path of `residual` channels followed by the dense path.
    """

    residual: int
    inner: int
    growth: int
    groups: int
    stride: int
    project: bool
    """Whether both paths are made anew from x by a 1x1 convolution, as at the beginning of a stage."""
    dtype: DTypeLike
    bn_axis_name: str | None

    @nn.compact
    def __call__(self, x: jax.Array, *, use_running_average: bool) -> jax.Array:
        unit = partial(_NormConv, dtype=self.dtype, bn_axis_name=self.bn_axis_name)

        def apply(layer: nn.Module, y: jax.Array) -> jax.Array:
            return layer(y, use_running_average=use_running_average)

        paths = x
        if self.project:
            features = self.residual + 2 * self.growth
            paths = apply(unit(features, stride=self.stride, name="project"), x)
        y = apply(unit(self.inner, name="reduce"), x)
        y = apply(unit(self.inner, 3, self.stride, self.groups, name="mix"), y)
        y = apply(unit(self.residual + self.growth, name="expand"), y)
        added = paths[..., : self.residual] + y[..., : self.residual]
        return jnp.concatenate([added, paths[..., self.residual :], y[..., self.residual :]], axis=-1)


class DPN(nn.Module):
    """Stem, max pooling, four stages of dual path blocks, a last norm with ReLU, linear head.

    Shapes at 224 px for dpn92: stem (B, 112, 112, 64), stage1 (B, 56, 56, 336), stage2 (B, 28, 28, 704), stage3
    (B, 14, 14, 1552), stage4 (B, 7, 7, 2688), all before the next norm; normed (B, 7, 7, 2688), pooled and pre_logits
    float32 (B, 2688). The stem is taken after its ReLU, before the pooling.
    """

    num_classes: int | None
    """None: the trunk alone, which returns its endpoints only."""
    stage_sizes: tuple[int, ...]
    growths: tuple[int, ...]
    """Channels that each block adds to the dense path, per stage."""
    residual: int
    """Channels of the residual path in the first stage; doubles per stage."""
    inner: int
    """Channels of the 3x3 convolutions in the first stage; doubles per stage."""
    stem_features: int
    stem_kernel: int
    groups: int = 32
    dtype: DTypeLike = jnp.float32
    """Activation dtype; parameters, statistics and logits are float32."""
    bn_axis_name: str | None = None
    """pmap axis over which BatchNorm statistics are averaged."""

    @nn.compact
    def __call__(
        self, images: jax.Array, *, train: bool, use_running_average: bool | None = None
    ) -> tuple[jax.Array, Endpoints] | Endpoints:
        """Map float (B, H, W, 3) to (logits float32 (B, num_classes), endpoints).

        `use_running_average` None means `not train`; True freezes BatchNorm during training.
        """
        check_images(images)
        frozen = not train if use_running_average is None else use_running_average
        endpoints: Endpoints = {}
        stem = ConvNorm(
            self.stem_features,
            self.stem_kernel,
            2,
            self.stem_kernel // 2,
            epsilon=EPSILON,
            dtype=self.dtype,
            bn_axis_name=self.bn_axis_name,
            name="stem",
        )
        x = max_pool(record(self, endpoints, "stem", stem(images, use_running_average=frozen)))
        for stage, (size, growth) in enumerate(zip(self.stage_sizes, self.growths, strict=True), start=1):
            for index in range(size):
                block = _DualPathBlock(
                    self.residual * 2 ** (stage - 1),
                    self.inner * 2 ** (stage - 1),
                    growth,
                    self.groups,
                    stride=2 if index == 0 and stage > 1 else 1,
                    project=index == 0,
                    dtype=self.dtype,
                    bn_axis_name=self.bn_axis_name,
                    name=f"stage{stage}_{index}",
                )
                x = block(x, use_running_average=frozen)
            x = record(self, endpoints, f"stage{stage}", x)
        bn = BatchNorm(epsilon=EPSILON, axis_name=self.bn_axis_name, dtype=self.dtype, name="norm")
        x = record(self, endpoints, "normed", nn.relu(bn(x, use_running_average=frozen)))
        if self.num_classes is None:
            return endpoints
        pooled = record(self, endpoints, "pooled", global_average_pool(x))
        pre_logits = record(self, endpoints, "pre_logits", pooled)
        return Linear(self.num_classes, name="classifier")(pre_logits), endpoints


DPNS: dict[str, dict[str, Any]] = {
    "dpn68": {
        "stage_sizes": (3, 4, 12, 3),
        "growths": (16, 32, 32, 64),
        "residual": 64,
        "inner": 128,
        "stem_features": 10,
        "stem_kernel": 3,
    },
    "dpn92": {
        "stage_sizes": (3, 4, 20, 3),
        "growths": (16, 32, 24, 128),
        "residual": 256,
        "inner": 96,
        "stem_features": 64,
        "stem_kernel": 7,
    },
}

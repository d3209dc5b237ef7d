"""MobileNetV2 (Sandler et al. 2018) as torchvision builds it (`models/mobilenetv2.py`)."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from wbc_jax.models.endpoints import Endpoints, record
from wbc_jax.models.initialisers import kaiming_fan_out, normal
from wbc_jax.models.layers import Linear, check_images, global_average_pool
from wbc_jax.models.zoo.units import ConvNorm

_head_init = normal(0.01)
Stage = tuple[int, int, int, int]
"""Expansion, channels, blocks, stride of the first block."""


class _InvertedResidual(nn.Module):
    """1x1 to a multiple of the channels, depthwise 3x3 with the stride, 1x1 without activation; plus x if it fits."""

    features: int
    expansion: int
    stride: int
    dtype: DTypeLike
    bn_axis_name: str | None

    @nn.compact
    def __call__(self, x: jax.Array, *, use_running_average: bool) -> jax.Array:
        unit = partial(
            ConvNorm,
            activation=nn.relu6,
            kernel_init=kaiming_fan_out,
            dtype=self.dtype,
            bn_axis_name=self.bn_axis_name,
        )
        frozen, hidden = use_running_average, self.expansion * x.shape[-1]
        y = x
        if self.expansion != 1:
            y = unit(hidden, name="expand")(y, use_running_average=frozen)
        depthwise = unit(hidden, 3, self.stride, 1, groups=hidden, name="depthwise")
        y = depthwise(y, use_running_average=frozen)
        y = unit(self.features, activation=None, name="project")(y, use_running_average=frozen)
        return x + y if x.shape == y.shape else y


class MobileNetV2(nn.Module):
    """Stem, seven stages of inverted residual blocks, a wide 1x1 convolution, linear head.

    Shapes at 224 px: stem (B, 112, 112, 32), stage1 (B, 112, 112, 16), stage2 (B, 56, 56, 24), stage3 (B, 28, 28, 32),
    stage4 (B, 14, 14, 64), stage5 (B, 14, 14, 96), stage6 (B, 7, 7, 160), stage7 (B, 7, 7, 320), widened
    (B, 7, 7, 1280), pooled and pre_logits float32 (B, 1280).
    """

    num_classes: int | None
    """None: the trunk alone, which returns its endpoints only."""
    stem_features: int = 32
    stages: tuple[Stage, ...] = (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )
    """Expansion, channels, blocks and first stride of each stage."""
    widened_features: int = 1280
    dropout_rate: float = 0.2
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
        unit = partial(
            ConvNorm,
            activation=nn.relu6,
            kernel_init=kaiming_fan_out,
            dtype=self.dtype,
            bn_axis_name=self.bn_axis_name,
        )
        x = unit(self.stem_features, 3, 2, 1, name="stem")(images, use_running_average=frozen)
        x = record(self, endpoints, "stem", x)
        for stage, (expansion, features, blocks, stride) in enumerate(self.stages, start=1):
            for index in range(blocks):
                block = _InvertedResidual(
                    features,
                    expansion,
                    stride if index == 0 else 1,
                    self.dtype,
                    self.bn_axis_name,
                    name=f"stage{stage}_{index}",
                )
                x = block(x, use_running_average=frozen)
            x = record(self, endpoints, f"stage{stage}", x)
        x = unit(self.widened_features, name="widen")(x, use_running_average=frozen)
        x = record(self, endpoints, "widened", x)
        pooled = record(self, endpoints, "pooled", global_average_pool(x))
        pre_logits = nn.Dropout(self.dropout_rate)(pooled, deterministic=not train)
        pre_logits = record(self, endpoints, "pre_logits", pre_logits)
        if self.num_classes is None:
            return endpoints
        head = Linear(self.num_classes, zero_bias=True, kernel_init=_head_init, name="classifier")
        return head(pre_logits), endpoints


MOBILENETS_V2: dict[str, dict[str, Any]] = {"mobilenet_v2": {}}

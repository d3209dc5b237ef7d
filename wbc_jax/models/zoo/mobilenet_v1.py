"""MobileNetV1 (Howard et al. 2017) as timm builds it (`mobilenetv1_100`): ReLU6, no shortcuts."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from wbc_jax.models.endpoints import Endpoints, record
from wbc_jax.models.initialisers import kaiming_fan_in, kaiming_fan_out
from wbc_jax.models.layers import Linear, check_images, global_average_pool
from wbc_jax.models.zoo.units import ConvNorm


class MobileNetV1(nn.Module):
    """Stem, five stages of depthwise 3x3 and 1x1 convolutions, linear head.

    Shapes at 224 px: stem (B, 112, 112, 32), stage1 (B, 112, 112, 64), stage2 (B, 56, 56, 128), stage3
    (B, 28, 28, 256), stage4 (B, 14, 14, 512), stage5 (B, 7, 7, 1024), pooled and pre_logits float32 (B, 1024).
    """

    num_classes: int | None
    """None: the trunk alone, which returns its endpoints only."""
    stem_features: int = 32
    widths: tuple[int, ...] = (64, 128, 256, 512, 1024)
    stage_sizes: tuple[int, ...] = (1, 2, 2, 6, 2)
    """Blocks per stage; the first one of each but stage1 halves the map's sides."""
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
        unit = partial(ConvNorm, activation=nn.relu6, dtype=self.dtype, bn_axis_name=self.bn_axis_name)
        dense = partial(unit, kernel_init=kaiming_fan_out)
        x = dense(self.stem_features, 3, 2, 1, name="stem")(images, use_running_average=frozen)
        x = record(self, endpoints, "stem", x)
        for stage, (size, width) in enumerate(zip(self.stage_sizes, self.widths, strict=True), start=1):
            for index in range(size):
                stride, name, channels = (
                    (2 if index == 0 < stage - 1 else 1),
                    f"stage{stage}_{index}",
                    x.shape[-1],
                )
                # Each output of a depthwise convolution has one window's inputs, whatever the fan-out says.
                depthwise = unit(
                    channels, 3, stride, 1, channels, kernel_init=kaiming_fan_in, name=f"{name}_depthwise"
                )
                x = depthwise(x, use_running_average=frozen)
                x = dense(width, name=f"{name}_pointwise")(x, use_running_average=frozen)
            x = record(self, endpoints, f"stage{stage}", x)
        if self.num_classes is None:
            return endpoints
        pooled = record(self, endpoints, "pooled", global_average_pool(x))
        pre_logits = record(self, endpoints, "pre_logits", pooled)
        return Linear(self.num_classes, name="classifier")(pre_logits), endpoints


MOBILENETS_V1: dict[str, dict[str, Any]] = {"mobilenet_v1": {}}

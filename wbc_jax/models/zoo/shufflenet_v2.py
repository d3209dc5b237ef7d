"""ShuffleNetV2 (Ma et al. 2018) as torchvision builds it (`models/shufflenetv2.py`)."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from wbc_jax.models.endpoints import Endpoints, record
from wbc_jax.models.layers import Linear, check_images, global_average_pool, max_pool
from wbc_jax.models.zoo.units import ConvNorm


def shuffle_channels(x: jax.Array, groups: int = 2) -> jax.Array:
    """(B, H, W, C): channel j of group i moves to place j * groups + i, so that halves taken later mix the groups."""
    batch, height, width, channels = x.shape
    grouped = x.reshape(batch, height, width, groups, channels // groups)
    return grouped.swapaxes(3, 4).reshape(x.shape)


class _Unit(nn.Module):
    """Two branches side by side, then shuffled.

    With stride 1 the first half of the channels passes as it is and the second goes through branch2; with stride 2
    both branches read all channels. Depthwise 3x3 convolutions have no activation.
    """

    features: int
    stride: int
    dtype: DTypeLike
    bn_axis_name: str | None

    @nn.compact
    def __call__(self, x: jax.Array, *, use_running_average: bool) -> jax.Array:
        half = self.features // 2

        def unit(y: jax.Array, name: str, features: int) -> jax.Array:
            layer = ConvNorm(features, dtype=self.dtype, bn_axis_name=self.bn_axis_name, name=name)
            return layer(y, use_running_average=use_running_average)

        def depthwise(y: jax.Array, name: str) -> jax.Array:
            layer = ConvNorm(
                y.shape[-1],
                3,
                self.stride,
                1,
                groups=y.shape[-1],
                activation=None,
                dtype=self.dtype,
                bn_axis_name=self.bn_axis_name,
                name=name,
            )
            return layer(y, use_running_average=use_running_average)

        if self.stride == 1:
            first, second = x[..., :half], x[..., half:]
        else:
            first = unit(depthwise(x, "branch1_depthwise"), "branch1_project", half)
            second = x
        second = depthwise(unit(second, "branch2_expand", half), "branch2_depthwise")
        second = unit(second, "branch2_project", half)
        return shuffle_channels(
            jnp.concatenate([first, second], axis=-1)
        )  # (B, H / stride, W / stride, features)


class ShuffleNetV2(nn.Module):
    """Stem, max pooling, three stages of shuffled units, a wide 1x1 convolution, linear head.

    Shapes at 224 px for shufflenet_v2_x1_0: stem (B, 112, 112, 24), stage2 (B, 28, 28, 116), stage3 (B, 14, 14, 232),
    stage4 (B, 7, 7, 464), conv5 (B, 7, 7, 1024), pooled and pre_logits float32 (B, 1024). The stem is taken after
    its ReLU, before the pooling.
    """

    num_classes: int | None
    """None: the trunk alone, which returns its endpoints only."""
    stem_features: int = 24
    stage_sizes: tuple[int, ...] = (4, 8, 4)
    widths: tuple[int, ...] = (116, 232, 464)
    widened_features: int = 1024
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
        unit = partial(ConvNorm, dtype=self.dtype, bn_axis_name=self.bn_axis_name)
        x = unit(self.stem_features, 3, 2, 1, name="conv1")(images, use_running_average=frozen)
        x = max_pool(record(self, endpoints, "stem", x))
        for stage, (size, width) in enumerate(zip(self.stage_sizes, self.widths, strict=True), start=2):
            for index in range(size):
                stride = 2 if index == 0 else 1
                block = _Unit(width, stride, self.dtype, self.bn_axis_name, name=f"stage{stage}_{index}")
                x = block(x, use_running_average=frozen)
            x = record(self, endpoints, f"stage{stage}", x)
        x = unit(self.widened_features, name="conv5")(x, use_running_average=frozen)
        x = record(self, endpoints, "conv5", x)
        if self.num_classes is None:
            return endpoints
        pooled = record(self, endpoints, "pooled", global_average_pool(x))
        pre_logits = record(self, endpoints, "pre_logits", pooled)
        return Linear(self.num_classes, name="fc")(pre_logits), endpoints


SHUFFLENETS_V2: dict[str, dict[str, Any]] = {"shufflenet_v2_x1_0": {}}

"""Inception-v4 (Szegedy et al. 2017) as timm builds it (`models/inception_v4.py`)."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from wbc_jax.models.endpoints import Endpoints, record
from wbc_jax.models.layers import Linear, check_images, global_average_pool, max_pool
from wbc_jax.models.zoo.inception_blocks import BLOCKS, STEM, Branch, Fork, Unit, layout
from wbc_jax.models.zoo.units import ConvNorm, check_image_size

LEAST_PX = 75
"""Below that the second reduction has no whole window."""
EPSILON = 1e-3
_STAGE_ENDS = {"stem_3a": "stage1", "a": "stage2", "b": "stage3", "c": "stage4"}


def _average(x: jax.Array) -> jax.Array:
    """3x3 mean with stride 1 over what lies inside the map, in float32."""
    pads = cast(Any, [(1, 1), (1, 1)])
    mean = nn.avg_pool(x.astype(jnp.float32), (3, 3), (1, 1), pads, count_include_pad=False)
    return mean.astype(x.dtype)


class _Block(nn.Module):
    """Branches side by side, concatenated; convolutions are `branch<i>_<j>`, in a fork `…a` and `…b`."""

    branches: tuple[Branch, ...]
    dtype: DTypeLike
    bn_axis_name: str | None

    @nn.compact
    def __call__(self, x: jax.Array, *, use_running_average: bool) -> jax.Array:
        def convolve(y: jax.Array, unit: Unit, name: str) -> jax.Array:
            layer = _conv_norm(unit, self.dtype, self.bn_axis_name, name)
            return layer(y, use_running_average=use_running_average)

        results: list[jax.Array] = []
        for index, branch in enumerate(self.branches):
            y, position = x, 0
            for step in branch:
                name = f"branch{index}_{position}"
                match step:
                    case "average":
                        y = _average(y)
                    case "maximum":
                        y = max_pool(y, padding=0)
                    case Unit():
                        y, position = convolve(y, step, name), position + 1
                    case Fork((left, right)):
                        y = jnp.concatenate(
                            [convolve(y, left, f"{name}a"), convolve(y, right, f"{name}b")], -1
                        )
            results.append(y)
        return jnp.concatenate(results, axis=-1)


def _conv_norm(unit: Unit, dtype: DTypeLike, bn_axis_name: str | None, name: str) -> ConvNorm:
    return ConvNorm(
        unit.features,
        unit.window,
        unit.stride,
        unit.padding,
        epsilon=EPSILON,
        dtype=dtype,
        bn_axis_name=bn_axis_name,
        name=name,
    )


class InceptionV4(nn.Module):
    """Stem, blocks A, reduction, blocks B, reduction, blocks C, linear head.

    Shapes at 299 px, the published size: stem (B, 147, 147, 64), stage1 (B, 73, 73, 160), stage2 (B, 35, 35, 384),
    stage3 (B, 17, 17, 1024), stage4 (B, 8, 8, 1536), pooled and pre_logits float32 (B, 1536). Nothing is padded where
    a map shrinks; at 224 px stage4 is (B, 5, 5, 1536).
    """

    num_classes: int | None
    """None: the trunk alone, which returns its endpoints only."""
    repeats: tuple[int, int, int] = (4, 7, 3)
    """Blocks A, B and C."""
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

        Raises:
            UsageError: images below 75 px.
        """
        check_images(images)
        check_image_size(images, at_least_px=LEAST_PX, network="InceptionV4")
        frozen = not train if use_running_average is None else use_running_average
        endpoints: Endpoints = {}
        x = images
        for index, unit in enumerate(STEM):
            x = _conv_norm(unit, self.dtype, self.bn_axis_name, f"stem_{index}")(
                x, use_running_average=frozen
            )
        x = record(self, endpoints, "stem", x)
        make = partial(_Block, dtype=self.dtype, bn_axis_name=self.bn_axis_name)
        blocks = layout(self.repeats)
        following = [kind for _, kind in blocks[1:]] + [""]
        for (name, kind), then in zip(blocks, following, strict=True):
            x = make(BLOCKS[kind], name=name)(x, use_running_average=frozen)
            if kind in _STAGE_ENDS and then != kind:
                x = record(self, endpoints, _STAGE_ENDS[kind], x)
        if self.num_classes is None:
            return endpoints
        pooled = record(self, endpoints, "pooled", global_average_pool(x))
        pre_logits = record(self, endpoints, "pre_logits", pooled)
        return Linear(self.num_classes, name="fc")(pre_logits), endpoints


INCEPTIONS_V4: dict[str, dict[str, Any]] = {"inception_v4": {}}

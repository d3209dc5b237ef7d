"""DAFFNet's morphological branch: the attribute predictor (MAP) and the attribute encoder (MAE).

MAP, blocks.md 8: ResNet50 with its 1000-way layer, then a linear head per WBCAtt attribute; 25,588,063 parameters.
MAE: the probabilities of each attribute become one row of an 11x11 map, three convolutions, 128 numbers; 214,907.
"""

from __future__ import annotations

from typing import Any, Literal, cast

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from wbc_jax.models.attribute_groups import GROUP_SIZES, TOTAL, split_groups
from wbc_jax.models.endpoints import Endpoints, record
from wbc_jax.models.layers import BatchNorm, Conv, Linear, global_average_pool
from wbc_jax.models.resnet import RESNETS, Norm, ResNet


class MorphologyPredictor(nn.Module):
    """MAP: which value each of the eleven attributes has, and, as deep supervision, which cell it is.

    `attribute_logits` float32 (B, 31), the groups of `attribute_groups`; the eleven heads are one matrix.
    `features` and `pre_logits` float32 (B, feature_units). Endpoints of the trunk are there under `trunk/`.
    """

    num_classes: int | None
    """Classes of the auxiliary head (DSL); None: no such head, the endpoints alone are returned."""
    trunk_name: str = "resnet50"
    feature_units: int = 1000
    norm: Norm = "batch"
    """`folded`: BatchNorm merged into the convolutions, for a frozen branch."""
    dtype: DTypeLike = jnp.float32
    bn_axis_name: str | None = None

    @nn.compact
    def __call__(
        self, images: jax.Array, *, train: bool, use_running_average: bool | None = None
    ) -> tuple[jax.Array, Endpoints] | Endpoints:
        """Map float (B, H, W, 3) to (logits float32 (B, num_classes), endpoints)."""
        trunk = ResNet(
            **RESNETS[self.trunk_name],
            num_classes=self.feature_units,
            norm=self.norm,
            dtype=self.dtype,
            bn_axis_name=self.bn_axis_name,
            name="trunk",
        )
        outputs = trunk(images, train=train, use_running_average=use_running_average)
        features, inner = cast(tuple[jax.Array, Endpoints], outputs)
        endpoints: Endpoints = {f"trunk/{name}": value for name, value in inner.items()}
        features = record(self, endpoints, "features", features)
        attributes = Linear(TOTAL, name="attribute_heads")(features)  # (B, 31)
        record(self, endpoints, "attribute_logits", attributes)
        if self.num_classes is None:
            return endpoints
        pre_logits = record(self, endpoints, "pre_logits", features)
        return Linear(self.num_classes, name="logits")(pre_logits), endpoints


class MorphologyEncoder(nn.Module):
    """MAE: attribute probabilities float32 (B, 31) -> code float32 (B, 128).

    Per attribute of n values: linear n -> 10 n, sigmoid, linear -> 11. The eleven rows are one 11x11 map of one
    channel; convolutions 1x1 to 8, 3x3 to 64, 5x5 to 128, each with bias, BatchNorm and ReLU; mean.
    """

    padding: Literal["valid", "same"] = "valid"
    """`valid`: the map shrinks, 11 -> 11 -> 9 -> 5; `same`: it stays 11x11."""
    bn_axis_name: str | None = None

    @nn.compact
    def __call__(self, probabilities: jax.Array, *, use_running_average: bool) -> jax.Array:
        rows = []
        for index, (size, part) in enumerate(zip(GROUP_SIZES, split_groups(probabilities), strict=True)):
            hidden = nn.sigmoid(Linear(10 * size, name=f"expand_{index}")(part))
            rows.append(Linear(len(GROUP_SIZES), name=f"row_{index}")(hidden))
        x = jnp.stack(rows, axis=1)[..., None]  # (B, 11, 11, 1)
        for index, (features, size) in enumerate(((8, 1), (64, 3), (128, 5)), start=1):
            padding = size // 2 if self.padding == "same" else 0
            x = Conv(features, size, 1, padding, use_bias=True, name=f"conv{index}")(x)
            bn = BatchNorm(axis_name=self.bn_axis_name, name=f"bn{index}")
            x = bn(x, use_running_average=use_running_average, relu=True)
        return global_average_pool(x)  # (B, 5, 5, 128) -> (B, 128)


MORPHOLOGY_PREDICTORS: dict[str, dict[str, Any]] = {
    "map_resnet50": {},
    # For 64-96 px on a CPU.
    "map_tiny": {"trunk_name": "resnet_tiny", "feature_units": 128},
}

"""DAFFNet: semantic features of an EPSA-SA ResNet50 beside the code of eleven predicted attributes.

Reading of blocks.md 8 and 10: 1000 semantic features and 128 morphological ones, concatenated, one linear decoder;
48,371,930 parameters for 5 classes. The rows of the paper's ablation (Table 4) are fields:

    row       semantic_name  spatial_gate  morphology
    ResNet50  resnet50       none          none
    + EPSA    epsanet50      none          none
    + SA      epsanet50      block         none
    + MAP     epsanet50      block         map
    + MAE     epsanet50      block         map_mae

Its comparison of backbones: semantic_name resnet50, vgg19 or vit_b_16 with spatial_gate none, each with its 1000-way
layer.
"""

from __future__ import annotations

from typing import Any, Literal, cast

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from wbc_jax.errors import UsageError
from wbc_jax.models.attribute_groups import group_argmax, group_softmax
from wbc_jax.models.endpoints import Endpoints, record
from wbc_jax.models.layers import Linear
from wbc_jax.models.morphology import MORPHOLOGY_PREDICTORS, MorphologyEncoder, MorphologyPredictor
from wbc_jax.models.resnet import RESNETS, ResNet
from wbc_jax.models.zoo import ZOO

SEMANTIC_TRUNKS: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {
    **{name: (ResNet, fields) for name, fields in RESNETS.items()},
    **ZOO,
}
"""What the semantic branch can be. The paper compares resnet50, vgg19 and vit_b_16 and adds attention to the first."""


class DAFFNet(nn.Module):
    """Semantic branch, attribute branch, decoder.

    `semantic` float32 (B, semantic_units), `attribute_logits` float32 (B, 31), `morphology_code` float32 (B, 128)
    or, without the encoder, (B, 11) or (B, 31); `pre_logits` their concatenation. Endpoints of the branches are
    there under `semantic/` and `map/`.
    """

    num_classes: int
    semantic_name: str = "epsanet50"
    """One of `SEMANTIC_TRUNKS`."""
    spatial_gate: Literal["none", "block", "last"] = "block"
    """CBAM's spatial gate in the semantic branch: in each block, once behind the last stage, or nowhere."""
    morphology: Literal["none", "map", "map_mae"] = "map_mae"
    """`none`: the semantic branch alone; `map`: the predicted attributes as they are; `map_mae`: encoded."""
    map_name: str = "map_resnet50"
    map_code: Literal["argmax", "probabilities"] = "argmax"
    """What the decoder reads of the attributes where there is no encoder: the 11 values' numbers, or the 31
    probabilities."""
    mae_padding: Literal["valid", "same"] = "valid"
    map_gradient: bool = False
    """Let the class loss reach the predictor; otherwise the gradient stops at its probabilities."""
    freeze_map: bool = True
    """The predictor runs as in evaluation: stored BatchNorm statistics, which stay as they are."""
    fold_map: bool = False
    """The predictor's BatchNorms are merged into its convolutions; see `wbc_jax.models.fold`."""
    semantic_units: int = 1000
    dtype: DTypeLike = jnp.float32
    """Activation dtype; parameters, statistics, gates, encoder and decoder are float32."""
    bn_axis_name: str | None = None
    """pmap axis over which BatchNorm statistics are averaged."""

    @nn.compact
    def __call__(
        self,
        images: jax.Array,
        *,
        train: bool,
        use_running_average: bool | None = None,
        attribute_logits: jax.Array | None = None,
    ) -> tuple[jax.Array, Endpoints]:
        """Map float (B, H, W, 3) to (logits float32 (B, num_classes), endpoints).

        Args:
            images: normalised.
            train: dropout and batch statistics on.
            use_running_average: None means `not train`; True freezes BatchNorm.
            attribute_logits: float32 (B, 31), the predictor's output where it is known already; it is not run then.
        """
        frozen = not train if use_running_average is None else use_running_average
        endpoints: Endpoints = {}
        outputs = self._semantic_trunk()(images, train=train, use_running_average=frozen)  # pyright: ignore[reportCallIssue]
        semantic, inner = cast(tuple[jax.Array, Endpoints], outputs)
        endpoints |= {f"semantic/{name}": value for name, value in inner.items()}
        parts = [record(self, endpoints, "semantic", semantic)]
        if self.morphology != "none":
            if attribute_logits is None:
                attribute_logits = self._predict_attributes(images, train, frozen, endpoints)
            attribute_logits = record(self, endpoints, "attribute_logits", attribute_logits)
            code = self._code(attribute_logits, frozen)
            parts.append(record(self, endpoints, "morphology_code", code))
        x = jnp.concatenate(parts, axis=-1)  # (B, 1128)
        x = record(self, endpoints, "pre_logits", x)
        return Linear(self.num_classes, name="logits")(x), endpoints

    @property
    def differentiates_map(self) -> bool:
        """Whether the class logits have a gradient with respect to the predictor."""
        rounded = self.morphology == "map" and self.map_code == "argmax"
        return self.morphology != "none" and self.map_gradient and not rounded

    def _semantic_trunk(self) -> nn.Module:
        if self.semantic_name not in SEMANTIC_TRUNKS:
            raise UsageError(
                f"semantic_name={self.semantic_name!r}",
                expected="one of " + ", ".join(SEMANTIC_TRUNKS),
                where="DAFFNet",
            )
        network, fields = SEMANTIC_TRUNKS[self.semantic_name]
        if network is ResNet:
            fields = {**fields, "spatial_gate": self.spatial_gate}
        elif self.spatial_gate != "none":
            raise UsageError(
                f"spatial_gate={self.spatial_gate!r}: {self.semantic_name} has no residual blocks to put it in",
                expected="none",
                where="DAFFNet",
                remedy="give --model.spatial-gate none with this semantic branch",
            )
        return network(
            **fields,
            num_classes=self.semantic_units,
            dtype=self.dtype,
            bn_axis_name=self.bn_axis_name,
            name="semantic",
        )

    def _predict_attributes(
        self, images: jax.Array, train: bool, frozen: bool, endpoints: Endpoints
    ) -> jax.Array:
        fields = {**MORPHOLOGY_PREDICTORS[self.map_name], "norm": "folded" if self.fold_map else "batch"}
        predictor = MorphologyPredictor(
            **fields, num_classes=None, dtype=self.dtype, bn_axis_name=self.bn_axis_name, name="map"
        )
        inner = predictor(
            images,
            train=train and not self.freeze_map,
            use_running_average=True if self.freeze_map else frozen,
        )
        inner = cast(Endpoints, inner)
        endpoints |= {f"map/{name}": value for name, value in inner.items()}
        return inner["attribute_logits"]

    def _code(self, attribute_logits: jax.Array, frozen: bool) -> jax.Array:
        """What the decoder reads of the attributes, float32."""
        if not self.map_gradient:
            attribute_logits = jax.lax.stop_gradient(attribute_logits)
        if self.morphology == "map" and self.map_code == "argmax":
            return group_argmax(attribute_logits).astype(jnp.float32)  # (B, 11)
        probabilities = group_softmax(attribute_logits)  # (B, 31)
        if self.morphology == "map":
            return probabilities
        encoder = MorphologyEncoder(self.mae_padding, self.bn_axis_name, name="mae")
        return encoder(probabilities, use_running_average=frozen)  # (B, 128)


DAFFNETS: dict[str, dict[str, Any]] = {
    "daffnet": {},
    # For 64-96 px on a CPU.
    "daffnet_tiny": {"semantic_name": "epsanet_tiny", "map_name": "map_tiny", "semantic_units": 128},
}

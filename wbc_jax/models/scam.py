"""SCAM: ResNet and DenseNet features, fused, gated by spatial then channel attention, classified.

blocks.md's reading of the paper: 1x1 projections to 512 channels, addition, spatial gate, channel gate, global
average pool, 256 hidden units, dropout. 32,201,801 parameters for 5 classes.
"""

from __future__ import annotations

from typing import Any, Literal, cast

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from wbc_jax.errors import UsageError
from wbc_jax.models.attention import Attention, AttentionName
from wbc_jax.models.densenet import DENSENETS, DenseNet
from wbc_jax.models.endpoints import Endpoints, record
from wbc_jax.models.layers import Conv, Linear, global_average_pool
from wbc_jax.models.resnet import RESNETS, ResNet


class SCAM(nn.Module):
    """Two trunks, fusion, attention, head.

    Shapes at 224 px: `resnet` (B, 7, 7, 2048), `densenet` (B, 7, 7, 1024), `fused` and `attended` (B, 7, 7, 512;
    1024 with concat), `pooled` float32 (B, 512), `pre_logits` float32 (B, 256). `attended`, the output of the
    attention, is where the paper takes Grad-CAM. Every endpoint of a trunk is there under `resnet/` or `densenet/`.
    """

    num_classes: int
    branches: Literal["both", "resnet", "densenet"] = "both"
    attention: AttentionName = "scam"
    fusion: Literal["add", "concat"] = "add"
    cut: Literal["last", "14"] = "last"
    """`14` drops the last stage: ResNet ends with stage3, DenseNet with the raw output of block3 (14x14 at 224 px)."""
    dropout_rate: float = 0.5
    resnet_name: str = "resnet50"
    densenet_name: str = "densenet121"
    projection_features: int = 512
    hidden_features: int = 256
    dtype: DTypeLike = jnp.float32
    """Activation dtype; parameters, statistics, gates and the head are float32."""
    bn_axis_name: str | None = None
    """pmap axis over which BatchNorm statistics are averaged."""

    @nn.compact
    def __call__(
        self, images: jax.Array, *, train: bool, use_running_average: bool | None = None
    ) -> tuple[jax.Array, Endpoints]:
        """Map float (B, H, W, 3) to (logits float32 (B, num_classes), endpoints).

        `use_running_average` None means `not train`; True freezes BatchNorm while dropout stays on.
        """
        frozen = not train if use_running_average is None else use_running_average
        endpoints: Endpoints = {}
        projected = []
        for branch in ("resnet", "densenet") if self.branches == "both" else (self.branches,):
            trunk, end = self._trunk(branch)
            features = cast(Endpoints, trunk(images, train=train, use_running_average=frozen))
            endpoints |= {f"{branch}/{name}": value for name, value in features.items()}
            x = record(self, endpoints, branch, features[end])
            project = Conv(
                self.projection_features, use_bias=True, dtype=self.dtype, name=f"project_{branch}"
            )
            projected.append(record(self, endpoints, f"project_{branch}", project(x)))
        if len({x.shape for x in projected}) > 1:
            raise UsageError(
                f"branches that end with maps of {' and '.join(str(x.shape[1:3]) for x in projected)}",
                expected="maps of the same size",
                where=f"resnet_name={self.resnet_name!r}, densenet_name={self.densenet_name!r}",
                remedy="combine full networks with each other, or resnet_tiny with densenet_tiny",
            )
        if len(projected) == 1:
            fused = projected[0]
        elif self.fusion == "concat":
            fused = jnp.concatenate(projected, axis=-1)
        else:
            fused = projected[0] + projected[1]
        fused = record(self, endpoints, "fused", fused)
        attend = Attention(self.attention, self.bn_axis_name, name="attention")
        x, gates = attend(fused, use_running_average=frozen)
        endpoints |= gates
        x = record(self, endpoints, "attended", x)
        x = record(self, endpoints, "pooled", global_average_pool(x))
        x = nn.relu(Linear(self.hidden_features, name="hidden")(x))
        x = nn.Dropout(self.dropout_rate)(x, deterministic=not train)
        x = record(self, endpoints, "pre_logits", x)
        return Linear(self.num_classes, name="logits")(x), endpoints

    def _trunk(self, branch: str) -> tuple[ResNet | DenseNet, str]:
        """The trunk, cut where asked, and the endpoint it ends with."""
        shared = {"num_classes": None, "dtype": self.dtype, "bn_axis_name": self.bn_axis_name, "name": branch}
        fields = RESNETS[self.resnet_name] if branch == "resnet" else DENSENETS[self.densenet_name]
        key = "stage_sizes" if branch == "resnet" else "block_sizes"
        sizes = fields[key] if self.cut == "last" else fields[key][:-1]
        end = f"stage{len(sizes)}"
        if branch == "resnet":
            return ResNet(**{**fields, key: sizes, **shared}), end
        # What a preset says of its last transition does not hold for the one that a cut makes the last.
        ending = {} if self.cut == "last" else {"final_norm": False, "last_transition_pool": True}
        return DenseNet(**{**fields, key: sizes, **ending, **shared}), end


SCAMS: dict[str, dict[str, Any]] = {
    "scam": {},
    # For 64-96 px on a CPU.
    "scam_tiny": {
        "resnet_name": "resnet_tiny",
        "densenet_name": "densenet_tiny",
        "projection_features": 128,
        "hidden_features": 128,
    },
}

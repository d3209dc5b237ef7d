"""VGG (Simonyan & Zisserman 2015) as torchvision builds it (`models/vgg.py`): configurations D and E, no BatchNorm."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from wbc_jax.models.endpoints import Endpoints, record
from wbc_jax.models.initialisers import kaiming_fan_out, normal
from wbc_jax.models.layers import Conv, Linear, adaptive_average_pool, check_images, max_pool
from wbc_jax.models.zoo.units import check_image_size

_linear_init = normal(0.01)
POOLED_SIZE = (7, 7)
"""What the last map is pooled to, so that any image size meets the same linear layers."""


class VGG(nn.Module):
    """Five stages of 3x3 convolutions, each followed by 2x2 max pooling; two wide linear layers; linear head.

    Stages are taken before their pooling. Shapes at 224 px: stage1 (B, 224, 224, 64) ... stage5 (B, 14, 14, 512);
    pooled float32 (B, 25088), channels first as torch flattens them; pre_logits float32 (B, 4096).
    """

    stage_sizes: tuple[int, ...]
    num_classes: int | None
    """None: endpoints only, up to `pre_logits`."""
    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    hidden_features: int = 4096
    dropout_rate: float = 0.5
    dtype: DTypeLike = jnp.float32
    """Activation dtype of the convolutions; parameters, linear layers and logits are float32."""
    bn_axis_name: str | None = None
    """For the interface that all networks share; there is no BatchNorm here."""

    @nn.compact
    def __call__(
        self, images: jax.Array, *, train: bool, use_running_average: bool | None = None
    ) -> tuple[jax.Array, Endpoints] | Endpoints:
        """Map float (B, H, W, 3) to (logits float32 (B, num_classes), endpoints).

        `use_running_average` is for the interface that all networks share.

        Raises:
            UsageError: images too small for all poolings, 32 px for five stages.
        """
        check_images(images)
        check_image_size(images, at_least_px=2 ** len(self.stage_sizes), network="VGG")
        endpoints: Endpoints = {}
        x = images
        for stage, (size, width) in enumerate(zip(self.stage_sizes, self.widths, strict=True), start=1):
            for index in range(1, size + 1):
                conv = Conv(
                    width,
                    kernel_size=3,
                    padding=1,
                    use_bias=True,
                    bias_init=nn.initializers.zeros,
                    kernel_init=kaiming_fan_out,
                    dtype=self.dtype,
                    name=f"conv{stage}_{index}",
                )
                x = nn.relu(conv(x))
            x = record(self, endpoints, f"stage{stage}", x)
            x = max_pool(x, size=2, stride=2, padding=0)  # (B, H / 2^stage, W / 2^stage, width)
        x = adaptive_average_pool(x, POOLED_SIZE).astype(jnp.float32)
        x = x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)  # (B, 7 * 7 * 512)
        x = record(self, endpoints, "pooled", x)
        for index in (1, 2):
            linear = Linear(self.hidden_features, zero_bias=True, kernel_init=_linear_init, name=f"fc{index}")
            x = nn.Dropout(self.dropout_rate)(nn.relu(linear(x)), deterministic=not train)
        x = record(self, endpoints, "pre_logits", x)
        if self.num_classes is None:
            return endpoints
        head = Linear(self.num_classes, zero_bias=True, kernel_init=_linear_init, name="classifier")
        return head(x), endpoints


VGGS: dict[str, dict[str, Any]] = {
    "vgg16": {"stage_sizes": (2, 2, 3, 3, 3)},
    "vgg19": {"stage_sizes": (2, 2, 4, 4, 4)},
}

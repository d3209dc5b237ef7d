"""AlexNet (Krizhevsky 2014, one tower) as torchvision builds it (`models/alexnet.py`)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from wbc_jax.models.endpoints import Endpoints, record
from wbc_jax.models.layers import Conv, Linear, adaptive_average_pool, check_images, max_pool
from wbc_jax.models.zoo.units import check_image_size

LEAST_PX = 63
"""Below that the third pooling has no whole window."""
POOLED_SIZE = (6, 6)
"""What the last map is pooled to, so that any image size meets the same linear layers."""


class AlexNet(nn.Module):
    """Five convolutions, each with ReLU, the first, second and fifth followed by 3x3 max pooling; three linear layers.

    Shapes at 224 px: stem (B, 55, 55, 64), stage2 (B, 27, 27, 192), stage3 (B, 13, 13, 384), stage4 and stage5
    (B, 13, 13, 256), each before its pooling; pooled float32 (B, 9216), channels first as torch flattens them;
    pre_logits float32 (B, 4096).
    """

    num_classes: int | None
    """None: endpoints only, up to `pre_logits`."""
    widths: tuple[int, int, int, int, int] = (64, 192, 384, 256, 256)
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
            UsageError: images below 63 px.
        """
        check_images(images)
        check_image_size(images, at_least_px=LEAST_PX, network="AlexNet")
        endpoints: Endpoints = {}

        def conv(x: jax.Array, index: int, size: int, stride: int = 1, padding: int = 1) -> jax.Array:
            layer = Conv(
                self.widths[index - 1],
                size,
                stride,
                padding,
                use_bias=True,
                dtype=self.dtype,
                name=f"conv{index}",
            )
            return record(self, endpoints, "stem" if index == 1 else f"stage{index}", nn.relu(layer(x)))

        x = conv(images, 1, size=11, stride=4, padding=2)  # (B, H / 4, W / 4, 64)
        x = conv(max_pool(x, padding=0), 2, size=5, padding=2)  # (B, H / 8, W / 8, 192)
        x = conv(max_pool(x, padding=0), 3, size=3)  # (B, H / 16, W / 16, 384)
        x = conv(conv(x, 4, size=3), 5, size=3)
        x = adaptive_average_pool(max_pool(x, padding=0), POOLED_SIZE).astype(jnp.float32)
        x = x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)  # (B, 256 * 6 * 6)
        x = record(self, endpoints, "pooled", x)
        for index in (1, 2):
            x = nn.Dropout(self.dropout_rate)(x, deterministic=not train)
            x = nn.relu(Linear(self.hidden_features, name=f"fc{index}")(x))
        x = record(self, endpoints, "pre_logits", x)
        if self.num_classes is None:
            return endpoints
        return Linear(self.num_classes, name="classifier")(x), endpoints


ALEXNETS: dict[str, dict[str, Any]] = {"alexnet": {}}

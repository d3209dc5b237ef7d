"""WBC-AMNet (PLoS ONE 17(1) e0261848, 2022): SE-ResNeXt50 with focalised attention on its first and last features.

Reading of blocks.md 9: X1 the stem, X5 the last stage, both 7x7x2048 after projection;
S = SE(P(X1) + X5), G = GE(X5), out = S + G + X5. 26,285,172 parameters for 4 classes.
"""

from __future__ import annotations

from typing import Any, Literal, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike

from wbc_jax.errors import UsageError
from wbc_jax.models.attention import SqueezeExcite, scale_channels
from wbc_jax.models.endpoints import Endpoints, record
from wbc_jax.models.gather_excite import GatherExcite, GatherExtent, GatherKind
from wbc_jax.models.initialisers import kaiming_fan_out
from wbc_jax.models.layers import (
    BatchNorm,
    Conv,
    Linear,
    adaptive_average_pool,
    global_average_pool,
    pooling_matrix,
)
from wbc_jax.models.resnet import RESNETS, ResNet

_IMAGENET_MEAN, _IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class AMNet(nn.Module):
    """Trunk, focalised attention, mean, dropout, linear head.

    Shapes at 224 px: `trunk/stem` X1 (B, 112, 112, 64), `trunk/stage4` X5 (B, 7, 7, 2048). The paper's four Grad-CAM
    maps are `trunk/stage4`, `attention/se_fused` (S), `attention/se_ge` (S + G) and `attended`; `pooled` and
    `pre_logits` are float32 (B, 2048).
    """

    num_classes: int
    trunk_name: str = "se_resnext50_32x4d"
    first_features: Literal["pooled", "stem7x7_2048"] = "pooled"
    """X1: the stem, pooled to the last map's size and projected by 1x1; or, as the paper's table reads, a second
    7x7 stride-2 convolution of the image to 2048 channels, averaged to that size."""
    ge_kind: GatherKind = "theta"
    ge_extent: GatherExtent = "global"
    use_se: bool = True
    """Add S; without it G and the original features are left."""
    use_ge: bool = True
    """Add G."""
    use_fusion: bool = True
    """Fuse: X1 into what SE reads, and the original features X5 into the sum."""
    dropout_rate: float = 0.5
    input_scaling: Literal["imagenet", "half"] = "imagenet"
    """Range that the trunk reads: images as given, by ImageNet's mean and deviation; or, as in the template that the
    paper's wording matches, grey levels less 127.5 over 127.5, computed here from images as given."""
    dtype: DTypeLike = jnp.float32
    """Activation dtype; parameters, statistics, gates and the head are float32."""
    bn_axis_name: str | None = None
    """pmap axis over which BatchNorm statistics are averaged."""

    @nn.compact
    def __call__(
        self, images: jax.Array, *, train: bool, use_running_average: bool | None = None
    ) -> tuple[jax.Array, Endpoints]:
        """Map float (B, H, W, 3), by ImageNet's mean and deviation, to (logits float32 (B, num_classes), endpoints).

        `use_running_average` None means `not train`; True freezes BatchNorm while dropout stays on.

        Raises:
            UsageError: nothing is left of the attention's sum.
        """
        if not (self.use_se or self.use_ge or self.use_fusion):
            raise UsageError(
                "use_se, use_ge and use_fusion are all off",
                expected="at least one term of the attention",
                where="AMNet",
                remedy=f"the network without attention is {self.trunk_name}",
            )
        frozen = not train if use_running_average is None else use_running_average
        if self.input_scaling == "half":
            images = to_half_range(images)
        trunk = ResNet(
            **RESNETS[self.trunk_name],
            num_classes=None,
            dtype=self.dtype,
            bn_axis_name=self.bn_axis_name,
            name="trunk",
        )
        inner = cast(Endpoints, trunk(images, train=train, use_running_average=frozen))
        endpoints: Endpoints = {f"trunk/{name}": value for name, value in inner.items()}
        attention = FocalisedAttention(
            first_features=self.first_features,
            ge_kind=self.ge_kind,
            ge_extent=self.ge_extent,
            use_se=self.use_se,
            use_ge=self.use_ge,
            use_fusion=self.use_fusion,
            dtype=self.dtype,
            bn_axis_name=self.bn_axis_name,
            name="attention",
        )
        x, maps = attention(images, inner["stem"], inner["stage4"], use_running_average=frozen)
        endpoints |= {f"attention/{name}": value for name, value in maps.items()}
        x = record(self, endpoints, "attended", x)
        x = record(self, endpoints, "pooled", global_average_pool(x))
        x = nn.Dropout(self.dropout_rate)(x, deterministic=not train)
        x = record(self, endpoints, "pre_logits", x)
        return Linear(self.num_classes, name="fc")(x), endpoints


def to_half_range(images: jax.Array) -> jax.Array:
    """Images by ImageNet's mean and deviation as grey levels less 127.5 over 127.5: [-1, 1]; float (B, H, W, 3)."""
    mean, deviation = (np.asarray(value, np.float32) for value in (_IMAGENET_MEAN, _IMAGENET_DEVIATION))
    factor, offset = (
        jnp.asarray(value, images.dtype)[None, None, None, :] for value in (2 * deviation, 2 * mean - 1)
    )
    return images * factor + offset


class FocalisedAttention(nn.Module):
    """S + G + X5 from the image, X1 and X5; fields as in `AMNet`."""

    first_features: Literal["pooled", "stem7x7_2048"] = "pooled"
    ge_kind: GatherKind = "theta"
    ge_extent: GatherExtent = "global"
    use_se: bool = True
    use_ge: bool = True
    use_fusion: bool = True
    dtype: DTypeLike = jnp.float32
    bn_axis_name: str | None = None

    @nn.compact
    def __call__(
        self, images: jax.Array, first: jax.Array, last: jax.Array, *, use_running_average: bool
    ) -> tuple[jax.Array, Endpoints]:
        """Return the attended map, shaped as `last`, and the maps on the way: `fused`, `se_fused`, `se_ge`."""
        endpoints: Endpoints = {}
        terms = []
        if self.use_se:
            fused = last
            if self.use_fusion:
                bn = BatchNorm(axis_name=self.bn_axis_name, dtype=self.dtype, name="project_bn")
                projected = self._project(images, first, last)
                fused = last + bn(projected, use_running_average=use_running_average)
            fused = record(self, endpoints, "fused", fused)
            gated = scale_channels(fused, SqueezeExcite(name="se")(fused))
            terms.append(record(self, endpoints, "se_fused", gated))
        if self.use_ge:
            gate = GatherExcite(self.ge_kind, self.ge_extent, self.bn_axis_name, name="ge")
            terms.append(last * gate(last, use_running_average=use_running_average).astype(last.dtype))
        x = sum(terms[1:], terms[0]) if terms else jnp.zeros_like(last)
        x = record(self, endpoints, "se_ge", x)
        return x + last if self.use_fusion else x, endpoints

    def _project(self, images: jax.Array, first: jax.Array, last: jax.Array) -> jax.Array:
        """P(X1) before its norm: (B, 7, 7, 2048)."""
        size, channels = (last.shape[1], last.shape[2]), last.shape[-1]
        if self.first_features == "stem7x7_2048":
            return PooledStem(channels, size, self.dtype, name="project")(images)
        pooled = adaptive_average_pool(first, size)  # (B, 7, 7, 64)
        return Conv(channels, kernel_init=kaiming_fan_out, dtype=self.dtype, name="project")(pooled)


class PooledStem(nn.Module):
    """A 7x7 stride-2 convolution without bias followed by adaptive average pooling, without the large map between.

    Averaging commutes with the convolution: output p is the kernel applied to the image averaged over the window of
    strided positions that p covers. Per axis that is one small matrix, (p, tap) x pixel.
    """

    features: int
    size: tuple[int, int]
    """Rows and columns after pooling."""
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        kernel = self.param("kernel", kaiming_fan_out, (7, 7, images.shape[-1], self.features), jnp.float32)
        rows, columns = (
            window_average(images.shape[axis], self.size[axis - 1]).astype(self.dtype) for axis in (1, 2)
        )
        windows = jnp.einsum(
            "pih,bhwc,qjw->bpqijc", rows, images.astype(self.dtype), columns
        )  # (B, 7, 7, 7, 7, 3)
        return jnp.einsum("bpqijc,ijcf->bpqf", windows, kernel.astype(self.dtype))  # (B, 7, 7, features)


def window_average(pixels: int, outputs: int, *, taps: int = 7, stride: int = 2) -> np.ndarray:
    """float32 (outputs, taps, pixels): the pixels, averaged, that tap i of the kernel meets in window p.

    The convolution has padding taps // 2; what lies outside the image is 0.
    """
    padding = taps // 2
    positions = (pixels + 2 * padding - taps) // stride + 1
    pooled = pooling_matrix(positions, outputs)
    matrix = np.zeros((outputs, taps, pixels), np.float32)
    for position in range(positions):
        for tap in range(taps):
            pixel = position * stride + tap - padding
            if 0 <= pixel < pixels:
                matrix[:, tap, pixel] += pooled[:, position]
    return matrix


AMNETS: dict[str, dict[str, Any]] = {
    "amnet": {},
    # For 64-96 px on a CPU.
    "amnet_tiny": {"trunk_name": "se_resnext_tiny"},
}

"""ResNet (He et al. 2016) as torchvision builds it: v1.5, the stride in the 3x3 convolution of a bottleneck.

ResNeXt (Xie et al. 2017) groups the 3x3 convolution, SE-ResNet and SE-ResNeXt (Hu et al. 2018) gate the channels of
each block, EPSANet (Zhang et al. 2021) has pyramid squeeze attention in place of the 3x3, DAFFNet adds CBAM's spatial
gate to that. All are fields of one network, so ImageNet weights fit every layer that two of them share.
"""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from wbc_jax.models.attention import SpatialGate, SqueezeExcite, scale_channels, scale_positions
from wbc_jax.models.endpoints import Endpoints, record
from wbc_jax.models.initialisers import kaiming_fan_out
from wbc_jax.models.layers import BatchNorm, Conv, Linear, check_images, global_average_pool, max_pool
from wbc_jax.models.psa import PyramidSqueezeAttention
from wbc_jax.models.residual import add_relu

Mixing = Literal["conv", "psa"]
Norm = Literal["batch", "folded"]


class _Block(nn.Module):
    """Residual block: basic (3x3, 3x3) or bottleneck (1x1, 3x3 with the stride, 1x1 to four times the width)."""

    width: int
    stride: int
    bottleneck: bool
    inner_width: int | None = None
    """Channels of a bottleneck's 3x3 convolution; None: `width`."""
    groups: int = 1
    mixing: Mixing = "conv"
    psa_groups: tuple[int, ...] = (1, 4, 8, 16)
    squeeze_excite: bool = False
    spatial_gate: bool = False
    norm: Norm = "batch"
    dtype: DTypeLike = jnp.float32
    bn_axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, use_running_average: bool) -> jax.Array:
        def conv(
            y: jax.Array, name: str, features: int, size: int, stride: int, groups: int = 1
        ) -> jax.Array:
            return Conv(
                features,
                size,
                stride,
                size // 2,
                groups,
                use_bias=self.norm == "folded",
                kernel_init=kaiming_fan_out,
                dtype=self.dtype,
                name=name,
            )(y)

        def mix(y: jax.Array) -> jax.Array:
            if self.mixing == "conv":
                return conv(y, "conv2", inner, 3, self.stride, self.groups)
            return PyramidSqueezeAttention(self.stride, self.psa_groups, self.dtype, name="psa")(y)

        def norm(
            y: jax.Array, name: str, *, residual: jax.Array | None = None, relu: bool = False
        ) -> jax.Array:
            if self.norm == "folded":
                y = y if residual is None else residual + y
                return nn.relu(y) if relu else y
            bn = BatchNorm(axis_name=self.bn_axis_name, dtype=self.dtype, name=name)
            return bn(y, use_running_average=use_running_average, residual=residual, relu=relu)

        inner = self.inner_width or self.width
        features = 4 * self.width if self.bottleneck else self.width
        shortcut = x
        if self.stride != 1 or x.shape[-1] != features:
            shortcut = norm(conv(x, "downsample_conv", features, 1, self.stride), "downsample_bn")
        if self.bottleneck:
            y = norm(conv(x, "conv1", inner, 1, 1), "bn1", relu=True)
            y = norm(mix(y), "bn2", relu=True)
            y, last = conv(y, "conv3", features, 1, 1), "bn3"
        else:
            y = norm(conv(x, "conv1", features, 3, self.stride), "bn1", relu=True)
            y, last = conv(y, "conv2", features, 3, 1), "bn2"
        if not (self.squeeze_excite or self.spatial_gate):
            return norm(y, last, residual=shortcut, relu=True)
        y = norm(y, last)
        if self.squeeze_excite:
            y = scale_channels(y, SqueezeExcite(name="se")(y))
        if self.spatial_gate:
            gate = SpatialGate(self.bn_axis_name, name="spatial_gate")
            y = scale_positions(y, gate(y, use_running_average=use_running_average))
        return add_relu(shortcut, y)


class ResNet(nn.Module):
    """Stem, up to four stages of residual blocks, linear head.

    Shapes at 224 px for resnet50: stem (B, 112, 112, 64), stage1 (B, 56, 56, 256), stage2 (B, 28, 28, 512),
    stage3 (B, 14, 14, 1024), stage4 (B, 7, 7, 2048), pooled and pre_logits float32 (B, 2048). The stem is taken
    after its ReLU, before the pooling.
    """

    stage_sizes: tuple[int, ...]
    bottleneck: bool
    num_classes: int | None
    """None: the trunk alone, which returns its endpoints only."""
    width: int = 64
    """Channels of the stem and of the first stage's 3x3 convolutions; doubles per stage."""
    stem_kernel: int = 7
    stem_stride: int = 2
    stem_pool: bool = True
    last_stride: int = 2
    """Stride of the fourth stage; 1 keeps its map twice as large."""
    groups: int = 1
    """Groups of a bottleneck's 3x3 convolution."""
    width_per_group: int = 64
    """A bottleneck's 3x3 convolution has `groups * width_per_group / 64` times the stage's width."""
    squeeze_excite: bool = False
    """Gate the channels of each block behind its last norm."""
    mixing: Mixing = "conv"
    """What a bottleneck has between its 1x1 convolutions: a 3x3 convolution or pyramid squeeze attention."""
    psa_groups: tuple[int, ...] = (1, 4, 8, 16)
    """Groups of the attention's four convolutions."""
    spatial_gate: Literal["none", "block", "last"] = "none"
    """CBAM's spatial gate: in each block behind its last norm, or once behind the last stage."""
    norm: Norm = "batch"
    """`folded`: no BatchNorm, each convolution has a bias; see `wbc_jax.models.fold`."""
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
        x = Conv(
            self.width,
            self.stem_kernel,
            self.stem_stride,
            self.stem_kernel // 2,
            use_bias=self.norm == "folded",
            kernel_init=kaiming_fan_out,
            dtype=self.dtype,
            name="conv1",
        )(images)
        if self.norm == "batch":
            bn = BatchNorm(axis_name=self.bn_axis_name, dtype=self.dtype, name="bn1")
            x = bn(x, use_running_average=frozen, relu=True)
        else:
            x = nn.relu(x)
        x = record(self, endpoints, "stem", x)
        if self.stem_pool:
            x = max_pool(x)
        for stage, size in enumerate(self.stage_sizes, start=1):
            width = self.width * 2 ** (stage - 1)
            for index in range(size):
                block = _Block(
                    width=width,
                    stride=self._stride(stage) if index == 0 else 1,
                    bottleneck=self.bottleneck,
                    inner_width=width * self.width_per_group // 64 * self.groups,
                    groups=self.groups,
                    squeeze_excite=self.squeeze_excite,
                    mixing=self.mixing,
                    psa_groups=self.psa_groups,
                    spatial_gate=self.spatial_gate == "block",
                    norm=self.norm,
                    dtype=self.dtype,
                    bn_axis_name=self.bn_axis_name,
                    name=f"layer{stage}_{index}",
                )
                x = block(x, use_running_average=frozen)
            x = record(self, endpoints, f"stage{stage}", x)
        if self.spatial_gate == "last":
            gate = SpatialGate(self.bn_axis_name, name="spatial_gate")(x, use_running_average=frozen)
            endpoints["spatial_gate"] = gate
            x = record(self, endpoints, "attended", scale_positions(x, gate))
        if self.num_classes is None:
            return endpoints
        pooled = record(self, endpoints, "pooled", global_average_pool(x))
        pre_logits = record(self, endpoints, "pre_logits", pooled)
        return Linear(self.num_classes, name="fc")(pre_logits), endpoints

    def _stride(self, stage: int) -> int:
        return {1: 1, 4: self.last_stride}.get(stage, 2)


_RESNET50: dict[str, Any] = {"stage_sizes": (3, 4, 6, 3), "bottleneck": True}
_BOTTLENECK_TINY: dict[str, Any] = {
    "stage_sizes": (1, 1, 1, 1),
    "bottleneck": True,
    "width": 16,
    "stem_kernel": 3,
    "stem_pool": False,
    "last_stride": 1,
}

RESNETS: dict[str, dict[str, Any]] = {
    "resnet18": {"stage_sizes": (2, 2, 2, 2), "bottleneck": False},
    "resnet34": {"stage_sizes": (3, 4, 6, 3), "bottleneck": False},
    "resnet50": _RESNET50,
    # The comparison tables' "DistResNet": ResNet50 itself, trained by that vendor's recipe for many devices.
    "dist_resnet50": _RESNET50,
    "resnet101": {"stage_sizes": (3, 4, 23, 3), "bottleneck": True},
    "resnet152": {"stage_sizes": (3, 8, 36, 3), "bottleneck": True},
    "resnext50_32x4d": {**_RESNET50, "groups": 32, "width_per_group": 4},
    "se_resnet50": {**_RESNET50, "squeeze_excite": True},
    "se_resnext50_32x4d": {**_RESNET50, "groups": 32, "width_per_group": 4, "squeeze_excite": True},
    "epsanet50": {**_RESNET50, "mixing": "psa"},
    "epsanet101": {"stage_sizes": (3, 4, 23, 3), "bottleneck": True, "mixing": "psa"},
    # For 64-96 px on a CPU: the map ends at an eighth of the image, 8x8 for 64 px, fine enough for attention and
    # for Grad-CAM to tell the cell from its surroundings.
    "resnet_tiny": {
        "stage_sizes": (1, 1, 1, 1),
        "bottleneck": False,
        "width": 16,
        "stem_kernel": 3,
        "stem_pool": False,
        "last_stride": 1,
    },
    # Narrow and shallow: for time to accuracy on a CPU, at 32-64 px.
    "resnet_micro": {
        "stage_sizes": (1, 1, 1),
        "bottleneck": False,
        "width": 32,
        "stem_kernel": 5,
        "stem_pool": False,
    },
    "resnet_bottleneck_tiny": _BOTTLENECK_TINY,
    "se_resnext_tiny": {**_BOTTLENECK_TINY, "groups": 4, "width_per_group": 32, "squeeze_excite": True},
    "epsanet_tiny": {**_BOTTLENECK_TINY, "mixing": "psa", "psa_groups": (1, 2, 4, 4)},
}

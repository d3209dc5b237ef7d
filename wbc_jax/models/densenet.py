"""DenseNet-BC (Huang et al. 2017) as torchvision builds it; the final ReLU is part of the trunk."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from wbc_jax.errors import UsageError
from wbc_jax.models.endpoints import Endpoints, record
from wbc_jax.models.initialisers import kaiming_fan_in
from wbc_jax.models.layers import (
    BatchNorm,
    Conv,
    Linear,
    Moments,
    batch_moments,
    check_images,
    global_average_pool,
    max_pool,
    projected_average,
)
from wbc_jax.models.lowerings import form_of


class _NormReluConv(nn.Module):
    """Base of the two building blocks: BatchNorm, ReLU, bias-free convolution, under explicit names."""

    features: int
    dtype: DTypeLike
    bn_axis_name: str | None

    def step(
        self,
        x: jax.Array,
        suffix: str,
        features: int,
        size: int,
        frozen: bool,
        moments: Moments | None,
        pool: bool = False,
    ) -> jax.Array:
        bn = BatchNorm(axis_name=self.bn_axis_name, dtype=self.dtype, name=f"norm{suffix}")
        conv = Conv(
            features,
            size,
            padding=size // 2,
            kernel_init=kaiming_fan_in,
            dtype=self.dtype,
            name=f"conv{suffix}",
        )
        y = bn(x, use_running_average=frozen, moments=moments, relu=True)
        return projected_average(y, conv) if pool else conv(y)


class _DenseLayer(_NormReluConv):
    """1x1 to four times the growth, then 3x3 to the growth."""

    @nn.compact
    def __call__(self, x: jax.Array, moments: Moments | None, *, frozen: bool) -> jax.Array:
        y = self.step(x, "1", 4 * self.features, 1, frozen, moments)
        return self.step(y, "2", self.features, 3, frozen, None)


class _Transition(_NormReluConv):
    """1x1 to half the channels, then 2x2 average pooling."""

    pool: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, moments: Moments | None, *, frozen: bool) -> jax.Array:
        if self.pool and min(x.shape[1:3]) < 2:
            raise UsageError(
                f"a {x.shape[1]}x{x.shape[2]} map at {self.name}",
                expected="at least 2x2 before each halving",
                where="model(images)",
                remedy="use larger images (32 px or more; 16 px for densenet_tiny)",
            )
        return self.step(x, "", self.features, 1, frozen, moments, self.pool)


class DenseNet(nn.Module):
    """Stem, dense blocks joined by transitions, final norm and ReLU, linear head.

    Shapes at 224 px for densenet121: stem (B, 112, 112, 64), block1 (B, 56, 56, 256), transition1 (B, 28, 28, 128),
    block2 (B, 28, 28, 512), block3 (B, 14, 14, 1024), block4 (B, 7, 7, 1024), stage4 = ReLU(norm5(block4)),
    pooled and pre_logits float32 (B, 1024). The stem is taken after its ReLU, before the pooling.

    Each feature map's batch moments are computed once and shared by every later normalisation that reads it; they
    do not depend on the reader. Running averages stay per layer. (DenseNet121 step on 2 CPU cores, batch 8, 224 px,
    jax 0.10.1: 3.8 -> 4.7 img/s.)
    """

    block_sizes: tuple[int, ...]
    num_classes: int | None
    """None: the trunk alone, which returns its endpoints only."""
    growth: int = 32
    """Channels each layer adds."""
    width: int = 64
    """Channels of the stem."""
    stem_kernel: int = 7
    stem_stride: int = 2
    stem_pool: bool = True
    last_transition_pool: bool = True
    """False: the last transition keeps the size of its map."""
    final_norm: bool = True
    """False: the trunk ends at the raw output of its last block, as where a pretrained one is cut short."""
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
            kernel_init=kaiming_fan_in,
            dtype=self.dtype,
            name="conv0",
        )(images)
        bn = BatchNorm(axis_name=self.bn_axis_name, dtype=self.dtype, name="norm0")
        x = record(self, endpoints, "stem", bn(x, use_running_average=frozen, relu=True))
        if self.stem_pool:
            x = max_pool(x)
        moments: Moments | None = None
        last = len(self.block_sizes)
        in_place = form_of("growth") == "in_place" and frozen and not train
        for block, size in enumerate(self.block_sizes, start=1):
            x, moments = self._dense_block(x, block, size, frozen, in_place)
            x = record(self, endpoints, f"block{block}", x)
            if block < last:
                transition = _Transition(
                    x.shape[-1] // 2,
                    self.dtype,
                    self.bn_axis_name,
                    pool=self.last_transition_pool or block < last - 1,
                    name=f"transition{block}",
                )
                x = record(self, endpoints, f"transition{block}", transition(x, moments, frozen=frozen))
        if self.final_norm:
            bn = BatchNorm(axis_name=self.bn_axis_name, dtype=self.dtype, name="norm5")
            x = bn(x, use_running_average=frozen, moments=moments, relu=True)
        x = record(self, endpoints, f"stage{last}", x)
        if self.num_classes is None:
            return endpoints
        pooled = record(self, endpoints, "pooled", global_average_pool(x))
        pre_logits = record(self, endpoints, "pre_logits", pooled)
        return Linear(self.num_classes, zero_bias=True, name="classifier")(pre_logits), endpoints

    def _dense_block(
        self, x: jax.Array, block: int, size: int, frozen: bool, in_place: bool
    ) -> tuple[jax.Array, Moments | None]:
        """Grow x by `size` layers; the moments are those of the returned map, None where they are not used.

        `in_place`: each layer writes its channels into the block's one map instead of copying all that came before.
        For evaluation: in training it was not measured.
        """
        width = x.shape[-1]
        if in_place:
            x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, size * self.growth)))  # (B, H, W, all channels)
        own = frozen or form_of("moments") == "repeated"  # each layer then takes, or keeps, its own
        moments = None if own else self._moments(x, self._norm_after(block, 0, size))
        for layer in range(1, size + 1):
            grow = _DenseLayer(self.growth, self.dtype, self.bn_axis_name, name=f"block{block}_layer{layer}")
            new = grow(x[..., :width], moments, frozen=frozen)
            if in_place:
                x = jax.lax.dynamic_update_slice(x, new, (0, 0, 0, width))
            else:
                x = jnp.concatenate([x, new], axis=-1)
            width += self.growth
            if moments is not None:
                added = self._moments(new, self._norm_after(block, layer, size))
                moments = jax.tree.map(lambda *parts: jnp.concatenate(parts), moments, added)
        return x, moments

    def _norm_after(self, block: int, layer: int, size: int) -> tuple[str, ...]:
        """Path of the first norm that reads what that layer (0: the block's input) adds."""
        if layer < size:
            return f"block{block}_layer{layer + 1}", "norm1"
        return (f"transition{block}", "norm") if block < len(self.block_sizes) else ("norm5",)

    def _moments(self, x: jax.Array, reader: tuple[str, ...]) -> Moments:
        """Moments of a map, taken around the running mean that its first reader keeps of it.

        Around zero the one-pass variance loses digits wherever a channel's mean exceeds its deviation: with random
        weights densenet121 then ends 1.3e-4 from torch in float64, around the running mean 0.7e-4, as torch itself.
        """
        if self.is_initializing():
            return batch_moments(x)
        statistics: Any = self.variables["batch_stats"]
        for name in reader:
            statistics = statistics.get(name, {})
        shift = statistics["mean"][-x.shape[-1] :] if statistics else None  # a cut trunk has no norm5
        return batch_moments(x, axis_name=self.bn_axis_name, shift=shift)


DENSENETS: dict[str, dict[str, Any]] = {
    "densenet121": {"block_sizes": (6, 12, 24, 16)},
    "densenet169": {"block_sizes": (6, 12, 32, 32)},
    "densenet201": {"block_sizes": (6, 12, 48, 32)},
    # For 64-96 px on a CPU: three blocks, so that the last map has the size of resnet_tiny's.
    "densenet_tiny": {
        "block_sizes": (2, 4, 4),
        "growth": 24,
        "width": 32,
        "stem_kernel": 3,
        "last_transition_pool": False,
    },
}

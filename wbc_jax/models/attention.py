"""Channel and spatial gates, and the orders in which SCAM's ablation combines them.

Gates follow CBAM (Woo et al. 2018, Jongchan/attention-module), SE (Hu et al. 2018) and ECA (Wang et al. 2020,
BangguWu/ECANet). They are computed in float32 and multiply the map in its own dtype.
"""

from __future__ import annotations

import math
from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from wbc_jax.errors import UsageError
from wbc_jax.models.channel_sums import image_sums
from wbc_jax.models.initialisers import torch_default
from wbc_jax.models.layers import BatchNorm, Conv, Linear, convolve, global_average_pool, global_max_pool
from wbc_jax.models.lowerings import form_of
from wbc_jax.models.pooling import maximum_along

AttentionName = Literal["none", "cam", "sam", "parallel", "csam", "scam", "se", "eca"]
REDUCTION = 16
"""Channels per hidden unit of the channel gates."""


class SpatialGate(nn.Module):
    """SAM: sigmoid(BN(conv7x7([max, mean] over channels))), float32 (B, H, W, 1).

    The author code starts the norm's scale at 0, which holds the gate at 0.5 and gives the convolution no gradient
    until the scale moves; here it starts at 1.
    """

    bn_axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, use_running_average: bool) -> jax.Array:
        wide = x.astype(jnp.float32)
        maps = jnp.stack([maximum_along(wide, -1), jnp.mean(wide, axis=-1)], axis=-1)  # (B, H, W, 2)
        mixed = Conv(1, kernel_size=7, padding=3, name="conv")(maps)  # (B, H, W, 1)
        bn = BatchNorm(momentum=0.99, axis_name=self.bn_axis_name, name="bn")
        return nn.sigmoid(bn(mixed, use_running_average=use_running_average))


def _hidden_units(channels: int) -> int:
    return max(channels // REDUCTION, 1)


class ChannelGate(nn.Module):
    """CAM: sigmoid(MLP(mean over positions) + MLP(max over positions)) with one shared MLP, float32 (B, C)."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        squeeze = Linear(_hidden_units(channels), name="squeeze")
        excite = Linear(channels, name="excite")
        mean, maximum = (excite(nn.relu(squeeze(p))) for p in (global_average_pool(x), global_max_pool(x)))
        return nn.sigmoid(mean + maximum)


class SqueezeExcite(nn.Module):
    """SE: sigmoid(MLP(mean over positions)), float32 (B, C)."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        hidden = nn.relu(Linear(_hidden_units(channels), name="squeeze")(global_average_pool(x)))
        return nn.sigmoid(Linear(channels, name="excite")(hidden))


def eca_kernel_size(channels: int) -> int:
    """Odd kernel size for that many channels: |log2(C) / 2 + 1 / 2| cut to an integer, up to the next odd one."""
    size = int(abs(math.log2(channels) / 2 + 0.5))
    return size if size % 2 else size + 1


class EfficientChannelAttention(nn.Module):
    """ECA: sigmoid of a bias-free 1-D convolution over the channel axis of the mean, float32 (B, C)."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        size = eca_kernel_size(x.shape[-1])
        kernel = self.param("kernel", torch_default, (size, 1, 1), jnp.float32)  # (k, 1, 1)
        pooled = global_average_pool(x)[:, None, :, None]  # (B, 1, C, 1)
        mixed = convolve(pooled, kernel[None, :, :, :], padding=(0, size // 2))
        return nn.sigmoid(mixed[:, 0, :, 0])


def scale_positions(x: jax.Array, gate: jax.Array) -> jax.Array:
    """Multiply x (B, H, W, C) by a gate (B, H, W, 1)."""
    return x * gate.astype(x.dtype)


def scale_channels(x: jax.Array, gate: jax.Array) -> jax.Array:
    """Multiply x (B, H, W, C) by a gate (B, C)."""
    return _scaled(x, gate) if form_of("channel_sums") == "blocked" else _product(x, gate)


def _product(x: jax.Array, gate: jax.Array) -> jax.Array:
    return x * gate.astype(x.dtype)[:, None, None, :]


_scaled = jax.custom_vjp(_product)


def _scaled_forward(x: jax.Array, gate: jax.Array):
    return _product(x, gate), (x, gate)


def _scaled_backward(kept, cotangent: jax.Array):
    x, gate = kept
    (d_gate,) = image_sums(lambda g, x: (g * x,), cotangent, x)
    return _product(cotangent, gate), d_gate.astype(gate.dtype)


_scaled.defvjp(_scaled_forward, _scaled_backward)


class Attention(nn.Module):
    """One arm of SCAM's attention ablation (Tables 5 and 6).

    `none`; `cam` channel only; `sam` spatial only; `parallel` both gates read x and the two products are added;
    `csam` channel, then spatial; `scam` spatial, then channel; `se`, `eca` other channel gates.
    """

    kind: AttentionName = "scam"
    bn_axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, use_running_average: bool) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Return the gated map and the gates: `spatial_gate` (B, H, W, 1), `channel_gate` (B, C), float32."""
        gates: dict[str, jax.Array] = {}

        def spatial(x: jax.Array) -> jax.Array:
            gate = SpatialGate(self.bn_axis_name, name="spatial_gate")
            gates["spatial_gate"] = gate(x, use_running_average=use_running_average)
            return scale_positions(x, gates["spatial_gate"])

        def channel(x: jax.Array, gate: nn.Module) -> jax.Array:
            gates["channel_gate"] = gate(x)
            return scale_channels(x, gates["channel_gate"])

        def cam(x: jax.Array) -> jax.Array:
            return channel(x, ChannelGate(name="channel_gate"))

        match self.kind:
            case "none":
                return x, gates
            case "cam":
                return cam(x), gates
            case "sam":
                return spatial(x), gates
            case "parallel":
                return spatial(x) + cam(x), gates
            case "csam":
                return spatial(cam(x)), gates
            case "scam":
                return cam(spatial(x)), gates
            case "se":
                return channel(x, SqueezeExcite(name="se")), gates
            case "eca":
                return channel(x, EfficientChannelAttention(name="eca")), gates
        raise UsageError(f"attention {self.kind!r}", expected="one of " + ", ".join(AttentionName.__args__))

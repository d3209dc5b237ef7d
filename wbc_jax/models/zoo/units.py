"""What several networks of other authors are made of."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike

from wbc_jax.errors import UsageError
from wbc_jax.models.initialisers import torch_default
from wbc_jax.models.layers import BatchNorm, Conv, Padding


class ConvNorm(nn.Module):
    """Convolution without bias, BatchNorm, activation: parameters `conv/kernel`, `bn/scale`, `bn/bias`."""

    features: int
    kernel_size: int | tuple[int, int] = 1
    stride: int = 1
    padding: Padding = 0
    groups: int = 1
    activation: Callable[[jax.Array], jax.Array] | None = nn.relu
    """None: what the norm gives."""
    epsilon: float = 1e-5
    kernel_init: Initializer = torch_default
    dtype: DTypeLike = jnp.float32
    bn_axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, use_running_average: bool) -> jax.Array:
        x = Conv(
            self.features,
            self.kernel_size,
            self.stride,
            self.padding,
            self.groups,
            kernel_init=self.kernel_init,
            dtype=self.dtype,
            name="conv",
        )(x)
        bn = BatchNorm(epsilon=self.epsilon, axis_name=self.bn_axis_name, dtype=self.dtype, name="bn")
        x = bn(x, use_running_average=use_running_average)
        return x if self.activation is None else self.activation(x)


def check_image_size(images: jax.Array, *, at_least_px: int, network: str) -> None:
    """Refuse, at trace time, images that some layer would leave nothing of.

    Raises:
        UsageError: a side below `at_least_px`.
    """
    height, width = images.shape[1:3]
    if min(height, width) < at_least_px:
        raise UsageError(
            f"images of {height}x{width} px",
            expected=f"sides of {at_least_px} px or more",
            where=network,
            remedy="choose a larger image size (--data.image-size-px), or a network that takes smaller images",
        )

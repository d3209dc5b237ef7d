"""The layers every network is made of: convolution, batch normalisation, linear, pooling.

Layout is NHWC, kernels are HWIO. Parameters and statistics are float32 whatever the activation dtype.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike

from wbc_jax.errors import UsageError
from wbc_jax.models.batch_norm import Moments, batch_moments, normalise
from wbc_jax.models.depthwise import shifted_products
from wbc_jax.models.grouped import merged_groups, split_groups
from wbc_jax.models.initialisers import torch_default, torch_default_bias
from wbc_jax.models.kernel_rows import is_narrow, rows_convolution
from wbc_jax.models.lowerings import form_of
from wbc_jax.models.native import Pads, native_convolution
from wbc_jax.models.onednn import onednn_convolution, serves
from wbc_jax.models.plain import plain_convolution
from wbc_jax.models.pointwise import pointwise
from wbc_jax.models.pooling import global_average_pool as global_average_pool
from wbc_jax.models.pooling import max_pool as max_pool
from wbc_jax.models.pooling import maximum_along
from wbc_jax.models.stems import folds, padded_stem, space_to_depth_stem
from wbc_jax.models.winograd import suits, winograd_convolution

Padding = int | tuple[int, int]
"""Zeros added on each side; a pair for (height, width)."""


def check_images(images: jax.Array) -> None:
    """Refuse, at trace time, anything but float (B, H, W, 3).

    Raises:
        UsageError: on another rank, channel count or an integer dtype.
    """
    if images.ndim != 4 or images.shape[-1] != 3 or not jnp.issubdtype(images.dtype, jnp.floating):
        raise UsageError(
            f"images of shape {images.shape} and dtype {images.dtype}",
            expected="float (B, H, W, 3), normalised",
            where="model(images)",
            remedy="put channels last, convert uint8 to float and normalise with the ImageNet mean and deviation",
        )


def conv_kind(kernel_shape: tuple[int, ...], groups: int, padding: tuple[int, int]) -> str:
    """`pointwise`, `depthwise`, `grouped` or `dense`: the key of `lowerings.WINNERS` beside the backend."""
    if groups > 1:
        return "depthwise" if kernel_shape[2:] == (1, groups) else "grouped"
    return "pointwise" if kernel_shape[:2] == (1, 1) and padding == (0, 0) else "dense"


def convolve(
    x: jax.Array,
    kernel: jax.Array,
    *,
    stride: int = 1,
    padding: Padding = 0,
    groups: int = 1,
) -> jax.Array:
    """Cross-correlate as torch does; every convolution of the package goes through here.

    Args:
        x: (B, H, W, C).
        kernel: (kh, kw, C / groups, F), same dtype as `x`.
        stride: pixels, both axes.
        padding: zeros added on each side; a pair for (height, width). Never "SAME", which pads one side only.
        groups: channel groups; the kernel keeps its grouped form in every lowering.

    Returns:
        (B, H', W', F) with H' = floor((H + 2 padding - kh) / stride) + 1.
    """
    pads = (padding, padding) if isinstance(padding, int) else padding
    if form_of("three_by_three") == "winograd" and suits(x, kernel, stride, pads, groups):
        return winograd_convolution(x, kernel)
    if form_of("library") == "onednn":
        thinned = kernel.shape[:2] == (1, 1) and pads == (0, 0)
        read, step = (x[:, ::stride, ::stride, :], 1) if thinned else (x, stride)
        if serves(read, kernel):
            return onednn_convolution(read, kernel, step, pads, groups, _by_xla)
    return _by_xla(x, kernel, stride, pads, groups)


def _by_xla(x: jax.Array, kernel: jax.Array, stride: int, pads: Pads, groups: int) -> jax.Array:
    if kernel.shape[2] == 3 and groups == 1:
        stem = form_of("stem")
        if stem == "space_to_depth" and folds(x, kernel, stride, pads):
            return space_to_depth_stem(x, kernel)
        if stem == "padded":
            return padded_stem(x, kernel, stride, pads)
    if is_narrow(kernel, groups) and form_of("narrow") == "rows":
        return rows_convolution(x, kernel, stride, pads, groups)
    form = form_of(conv_kind(kernel.shape, groups, pads))
    if form == "merged32" or form == "merged64":
        return merged_groups(x, kernel, stride, pads, groups, 32 if form == "merged32" else 64)
    if form == "dot":
        return pointwise(x[:, ::stride, ::stride, :], kernel[0, 0])
    if form == "shifted":
        return shifted_products(x, kernel, stride, pads)
    if form == "split":
        return split_groups(x, kernel, stride, pads, groups)
    if groups == 1:
        return plain_convolution(x, kernel, stride, pads)
    return native_convolution(x, kernel, stride, pads, groups)


class Conv(nn.Module):
    """2-D convolution with parameters `kernel` (kh, kw, C / groups, F) and, on request, `bias` (F,)."""

    features: int
    kernel_size: int | tuple[int, int] = 1
    """Side of the window, or (height, width)."""
    stride: int = 1
    padding: Padding = 0
    groups: int = 1
    use_bias: bool = False
    bias_init: Initializer | None = None
    """None: torch's default."""
    kernel_init: Initializer = torch_default
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        height, width = self.window
        channels = x.shape[-1] // self.groups
        kernel = self.param("kernel", self.kernel_init, (height, width, channels, self.features), jnp.float32)
        y = convolve(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            stride=self.stride,
            padding=self.padding,
            groups=self.groups,
        )
        if self.use_bias:
            bias_init = self.bias_init or torch_default_bias(height * width * channels)
            bias = self.param("bias", bias_init, (self.features,), jnp.float32)
            y = y + bias.astype(self.dtype)[None, None, None, :]
        return y

    @property
    def window(self) -> tuple[int, int]:
        """Height and width of the kernel."""
        size = self.kernel_size
        return (size, size) if isinstance(size, int) else size


class Linear(nn.Module):
    """x W + b in float32: heads and gates work on pooled vectors, where more precision costs nothing."""

    features: int
    zero_bias: bool = False
    kernel_init: Initializer = torch_default

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:  # (B, C) -> (B, F)
        fan_in = x.shape[-1]
        bias_init = nn.initializers.zeros if self.zero_bias else torch_default_bias(fan_in)
        kernel = self.param("kernel", self.kernel_init, (fan_in, self.features), jnp.float32)
        bias = self.param("bias", bias_init, (self.features,), jnp.float32)
        return x.astype(jnp.float32) @ kernel + bias[None, :]


class BatchNorm(nn.Module):
    """Batch normalisation over (B, H, W) with float32 statistics, output in `dtype`.

    Parameters `scale`, `bias`; batch_stats `mean`, `var` (biased, where torch keeps the unbiased one).
    `momentum` is the share of the old value that is kept: torch's 0.1 is 0.9 here.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    axis_name: str | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        *,
        use_running_average: bool,
        moments: Moments | None = None,
        residual: jax.Array | None = None,
        relu: bool = False,
    ) -> jax.Array:
        """Normalise x (B, H, W, C).

        Args:
            x: any float dtype.
            use_running_average: normalise with the stored statistics and keep them.
            moments: those of `x`, where the caller has them already.
            residual: added to the normalised map; shape of `x`.
            relu: whether the sum's negative values become 0.
        """
        channels = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, channels, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, channels, jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, channels, jnp.float32)
        if use_running_average:
            moments = Moments(running_mean.value, running_var.value)
        else:
            axis_name = None if self.is_initializing() else self.axis_name
            if moments is None:
                moments = batch_moments(x, axis_name=axis_name, shift=running_mean.value)
            if not self.is_initializing():
                kept, new = self.momentum, 1.0 - self.momentum
                running_mean.value = kept * running_mean.value + new * moments.mean
                running_var.value = kept * running_var.value + new * moments.var
        factor = scale * jax.lax.rsqrt(moments.var + self.epsilon)
        x = x.astype(self.dtype)
        return normalise(x, moments.mean, factor, bias, residual=residual, relu=relu)


def avg_pool(x: jax.Array, *, size: int = 2) -> jax.Array:
    """Mean over whole, adjoining windows, summed in float32; a rest at the lower and right edge is dropped."""
    batch, height, width, channels = x.shape
    rows, columns = height // size, width // size
    windows = x[:, : rows * size, : columns * size].reshape(batch, rows, size, columns, size, channels)
    return jnp.mean(windows.astype(jnp.float32), axis=(2, 4)).astype(x.dtype)  # (B, H / size, W / size, C)


def projected_average(x: jax.Array, project: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """`avg_pool(project(x))` for a 1x1 convolution without bias, in either order.

    Both are linear and exchange: the product of a mean is the mean of the products, for a quarter of the work.
    """
    if form_of("transition") == "pool_first":
        return project(avg_pool(x))
    return avg_pool(project(x))


def global_max_pool(x: jax.Array) -> jax.Array:
    """(B, H, W, C) -> float32 (B, C)."""
    batch, height, width, channels = x.shape
    return maximum_along(x.reshape(batch, height * width, channels), 1).astype(jnp.float32)


def pooling_matrix(inputs: int, outputs: int) -> np.ndarray:
    """float32 (outputs, inputs): row p averages the inputs of window p of torch's adaptive pooling.

    Window p reaches from floor(p inputs / outputs) up to ceil((p + 1) inputs / outputs), so windows of unequal size
    may overlap.
    """
    matrix = np.zeros((outputs, inputs), np.float32)
    for p in range(outputs):
        window = slice(p * inputs // outputs, -(-(p + 1) * inputs // outputs))
        matrix[p, window] = 1.0 / (window.stop - window.start)
    return matrix


def adaptive_average_pool(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Mean over `size` windows that cover x (B, H, W, C), as torch divides it; summed in float32."""
    height, width = size
    if x.shape[1] % height == 0 and x.shape[1] // height == x.shape[2] // width and x.shape[2] % width == 0:
        return avg_pool(x, size=x.shape[1] // height)
    rows, columns = pooling_matrix(x.shape[1], height), pooling_matrix(x.shape[2], width)
    return jnp.einsum("ph,bhwc,qw->bpqc", rows, x.astype(jnp.float32), columns).astype(x.dtype)

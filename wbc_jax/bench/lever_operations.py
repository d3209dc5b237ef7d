"""Operations that the levers change, at shapes that the networks have them in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wbc_jax.bench.compiled import compile_step
from wbc_jax.models.batch_norm import batch_moments, normalise
from wbc_jax.models.compiler import jit
from wbc_jax.models.layers import convolve, projected_average
from wbc_jax.models.lowerings import Form
from wbc_jax.models.pooling import max_pool


@dataclass(frozen=True)
class Operation:
    """A function of one map and of weights, measured forward and backward.

    Attributes:
        name: as printed.
        map_shape: (H, W, C).
        weight_shapes: of further arguments; all get gradients.
        apply: (map, *weights) -> map.
    """

    name: str
    map_shape: tuple[int, int, int]
    weight_shapes: tuple[tuple[int, ...], ...]
    apply: Callable[..., jax.Array]


def _convolution(
    side: int, channels: int, features: int, size: int, stride: int = 1, groups: int = 1
) -> Operation:
    def apply(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return convolve(x, kernel, stride=stride, padding=size // 2, groups=groups)

    marks = f"{'' if stride == 1 else f' /{stride}'}{'' if groups == 1 else f', {groups} groups'}"
    name = f"{size}x{size} {side}^2 {channels}->{features}{marks}"
    return Operation(name, (side, side, channels), ((size, size, channels // groups, features),), apply)


def _batch_norm(side: int, channels: int) -> Operation:
    def apply(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
        moments = batch_moments(x)
        factor = scale * jax.lax.rsqrt(moments.var + 1e-5)
        return normalise(x, moments.mean, factor, bias, relu=True)

    name = f"BatchNorm + ReLU {side}^2 x {channels}"
    return Operation(name, (side, side, channels), ((channels,), (channels,)), apply)


def _residual_sums(side: int, channels: int, blocks: int) -> Operation:
    def apply(x: jax.Array, kernel: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
        for _ in range(blocks):
            moments = batch_moments(y := convolve(x, kernel))
            factor = scale * jax.lax.rsqrt(moments.var + 1e-5)
            x = normalise(y, moments.mean, factor, bias, residual=x, relu=True)
        return x

    name = f"{blocks} residual sums {side}^2 x {channels}"
    weight_shapes = ((1, 1, channels, channels), (channels,), (channels,))
    return Operation(name, (side, side, channels), weight_shapes, apply)


def _transition(side: int, channels: int) -> Operation:
    def apply(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return projected_average(x, lambda y: convolve(y, kernel))

    name = f"1x1 {side}^2 {channels}->{channels // 2}, then 2x2 mean"
    return Operation(name, (side, side, channels), ((1, 1, channels, channels // 2),), apply)


OPERATIONS: dict[str, tuple[Operation, ...]] = {
    "three_by_three": (
        _convolution(28, 128, 128, 3),
        _convolution(14, 256, 256, 3),
        _convolution(28, 512, 512, 3),
    ),
    "library": (
        _convolution(224, 3, 64, 7, 2),
        _convolution(56, 64, 64, 3),
        _convolution(28, 512, 128, 1),
        _convolution(14, 256, 256, 3),
        _convolution(28, 256, 256, 3, 2),
        _convolution(56, 128, 32, 3),
        _convolution(56, 128, 128, 3, groups=32),
        _convolution(14, 512, 512, 3, groups=32),
        _convolution(28, 128, 32, 9, groups=16),
        _convolution(56, 144, 144, 3, groups=144),
    ),
    "pointwise": (
        _convolution(56, 64, 256, 1),
        _convolution(28, 512, 128, 1),
        _convolution(14, 256, 1024, 1),
        _convolution(7, 2048, 512, 1),
    ),
    "depthwise": (_convolution(56, 144, 144, 3, groups=144),),
    "grouped": (
        _convolution(56, 128, 128, 3, groups=32),
        _convolution(14, 512, 512, 3, groups=32),
    ),
    "dense": (
        _convolution(224, 3, 64, 7, 2),
        _convolution(56, 64, 64, 3),
        _convolution(28, 128, 128, 3),
        _convolution(28, 256, 256, 3, 2),
        _convolution(14, 256, 256, 3),
        _convolution(7, 512, 512, 3),
    ),
    "large_kernel": (_convolution(7, 512, 128, 9, groups=16), _convolution(6, 128, 32, 7, groups=4)),
    "channel_sums": (_batch_norm(112, 64), _batch_norm(56, 256), _batch_norm(14, 1024), _batch_norm(7, 2048)),
    "norm_gradient": (_batch_norm(112, 64), _batch_norm(14, 1024)),
    "max_pool": (Operation("max-pool 3x3 /2 112^2 x 64", (112, 112, 64), (), max_pool),),
    "narrow": (
        _convolution(56, 128, 32, 3),
        _convolution(56, 64, 16, 7, groups=8),
        _convolution(28, 128, 32, 9, groups=16),
        _convolution(56, 2, 1, 7),
    ),
    "strided": (
        _convolution(56, 128, 128, 3, 2),
        _convolution(14, 512, 512, 3, 2),
        _convolution(56, 128, 32, 7, 2, groups=8),
        _convolution(28, 512, 512, 3, 2, groups=32),
    ),
    "transition": (_transition(56, 256), _transition(14, 1024)),
    "reuse": (_residual_sums(56, 64, 6), _residual_sums(14, 256, 6)),
}
"""By kind, as in `lowerings.FORMS`; `stem`, `growth` and `moments` are measured within networks alone."""


class OperationSubject:
    """Value and all gradients of an operation, compiled.

    Attributes:
        costs: of compiling.
    """

    def __init__(
        self, operation: Operation, batch_size: int, dtype: Any, chosen: Mapping[str, Form] | None = None
    ) -> None:
        """
        Args:
            operation: what is run.
            batch_size: images.
            dtype: of maps and kernels; a weight per channel is float32, as in the networks.
            chosen: kind of operation -> form, where it is not the backend's own choice.
        """
        rng = np.random.default_rng(0)
        shapes = ((batch_size, *operation.map_shape), *operation.weight_shapes)
        args = tuple(
            jnp.asarray(rng.standard_normal(shape, np.float32), jnp.float32 if len(shape) == 1 else dtype)
            for shape in shapes
        )
        y = jax.eval_shape(operation.apply, *args)
        cotangent = jnp.asarray(rng.standard_normal(y.shape, np.float32), y.dtype)

        def both(cotangent: jax.Array, *args: jax.Array) -> tuple[jax.Array, Any]:
            value, pull = jax.vjp(operation.apply, *args)
            return value, pull(cotangent)

        self._args = (cotangent, *args)
        self._program, self.costs = compile_step(lambda: jit(both), self._args, chosen)

    def run(self, steps: int) -> None:
        """Carries it out that many times, one after the other."""
        for _ in range(steps):
            jax.block_until_ready(self._program(*self._args))

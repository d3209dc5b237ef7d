"""Weights before training: torch's distributions, and the weights of a whole network drawn at once.

XLA compiles each draw of random numbers anew. A network has hundreds of kernels, so `init_variables` draws one vector
of normal and one of uniform numbers, and the initialisers here take their shares of them.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.nn.initializers import Initializer

Fan = Literal["fan_in", "fan_out"]
Distribution = Literal["normal", "uniform"]


class _Pool:
    """Vectors of unit numbers and how much of each is taken; without vectors, a count of what a network takes."""

    def __init__(self, vectors: dict[Distribution, jax.Array] | None = None) -> None:
        self.vectors = vectors
        self.taken: dict[Distribution, int] = {"normal": 0, "uniform": 0}

    def take(self, distribution: Distribution, shape: tuple[int, ...]) -> jax.Array:
        start, size = self.taken[distribution], math.prod(shape)
        self.taken[distribution] = start + size
        if self.vectors is None:
            return jnp.zeros(shape, jnp.float32)
        return self.vectors[distribution][start : start + size].reshape(shape)


_pool: ContextVar[_Pool | None] = ContextVar("_pool", default=None)


@contextlib.contextmanager
def _drawing_from(pool: _Pool) -> Iterator[_Pool]:
    token = _pool.set(pool)
    try:
        yield pool
    finally:
        _pool.reset(token)


def _unit(distribution: Distribution, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """float32: standard normal, or uniform in [-1, 1)."""
    pool = _pool.get()
    if pool is not None:
        return pool.take(distribution, shape)
    if distribution == "normal":
        return jax.random.normal(key, shape, jnp.float32)
    return jax.random.uniform(key, shape, jnp.float32, -1.0, 1.0)


def _initialiser(distribution: Distribution, scale_of: Any) -> Initializer:
    def init(key: jax.Array, shape: Any, dtype: Any = None, out_sharding: Any = None) -> jax.Array:
        values = scale_of(shape) * _unit(distribution, key, tuple(shape))
        return values.astype(dtype or jnp.float32)

    return init


def _scaled_by(fan: Fan, gain: float, distribution: Distribution) -> Initializer:
    """Spread gain / sqrt(fan) for kernels (..., inputs, outputs)."""

    def scale(shape: tuple[int, ...]) -> float:
        window = math.prod(shape[:-2])
        return gain / math.sqrt(window * shape[-2 if fan == "fan_in" else -1])

    return _initialiser(distribution, scale)


# torch's kaiming_normal_ with ReLU gain, by outputs (torchvision ResNet) and by inputs (DenseNet), not truncated.
kaiming_fan_out: Initializer = _scaled_by("fan_out", math.sqrt(2.0), "normal")
kaiming_fan_in: Initializer = _scaled_by("fan_in", math.sqrt(2.0), "normal")
# torch's default for convolutions and linear layers: U(-1/sqrt(fan_in), 1/sqrt(fan_in)), weight and bias alike.
torch_default: Initializer = _scaled_by("fan_in", 1.0, "uniform")


def torch_default_bias(fan_in: int) -> Initializer:
    """U(-1/sqrt(fan_in), 1/sqrt(fan_in)); a bias cannot tell its layer's fan-in from its own shape."""
    return _initialiser("uniform", lambda shape: 1.0 / math.sqrt(fan_in))


def normal(deviation: float) -> Initializer:
    """N(0, deviation^2)."""
    return _initialiser("normal", lambda shape: deviation)


def init_variables(model: nn.Module, key: jax.Array, images: jax.Array) -> dict[str, Any]:
    """`model.init(key, images, train=False)`, sooner compiled: the same distributions, other numbers.

    Args:
        model: any network of the package; initialisers that are not of this module draw as ever.
        key: of all weights.
        images: float (B, H, W, 3); only the shape counts. Under jit the network's forward pass is pruned.
    """
    with _drawing_from(_Pool()) as counted:
        jax.eval_shape(lambda: model.init(key, images, train=False))
    keys = jax.random.split(key)
    # Behind the barrier a vector is drawn once; else XLA would draw it anew inside each share.
    normals, uniforms = jax.lax.optimization_barrier(
        (
            jax.random.normal(keys[0], (counted.taken["normal"],), jnp.float32),
            jax.random.uniform(keys[1], (counted.taken["uniform"],), jnp.float32, -1.0, 1.0),
        )
    )
    with _drawing_from(_Pool({"normal": normals, "uniform": uniforms})):
        return dict(model.init(key, images, train=False))

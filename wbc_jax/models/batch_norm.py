"""Batch normalisation with its activation and residual sum, as functions whose gradients keep next to nothing.

The gradient needs the input, the output where a residual was added, and three vectors per channel; mask and
normalised values are recomputed while the two channel sums are taken. Written with plain operations XLA would keep
masks and centred copies, and pass over them once per sum.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from wbc_jax.models.channel_sums import channel_sums
from wbc_jax.models.lowerings import form_of
from wbc_jax.models.residual import masked
from wbc_jax.models.stored import stored


class Moments(NamedTuple):
    """Mean and biased variance per channel, float32 (C,)."""

    mean: jax.Array
    var: jax.Array


def batch_moments(x: jax.Array, *, axis_name: str | None = None, shift: jax.Array | None = None) -> Moments:
    """Moments of x (B, H, W, C) over all but channels, in one pass, reduced in float32.

    Args:
        x: any float dtype.
        axis_name: pmap axis over which the batch is spread. Under jit the batch is global already.
        shift: (C,) a value near the mean. E[(x-c)^2] - (E[x]-c)^2 loses digits as (mean-c)/deviation grows: with
            c = 0 and a ratio of 1000 the variance of a float32 batch is anywhere between 0 and 2.5 times the true
            one. The running mean makes a good c at no cost.
    """
    if form_of("channel_sums") == "blocked" or form_of("norm_gradient") == "recomputed":
        origin = jnp.zeros(x.shape[-1], jnp.float32) if shift is None else jax.lax.stop_gradient(shift)
        count = x.size // x.shape[-1]
        first, second = (total / count for total in _power_sums(x, origin))
    else:
        wide = x.astype(jnp.float32)
        if shift is not None:
            shift = jax.lax.stop_gradient(shift)
            wide = wide - shift[None, None, None, :]
        first, second = jnp.mean(wide, axis=(0, 1, 2)), jnp.mean(jnp.square(wide), axis=(0, 1, 2))
    if axis_name is not None:
        first, second = jax.lax.pmean((first, second), axis_name)
    var = jnp.maximum(second - jnp.square(first), 0.0)
    return Moments(first if shift is None else first + shift, var)


@jax.custom_vjp
def _power_sums(x: jax.Array, origin: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Sums of x - origin and of its square, float32 (C,)."""

    def terms(block: jax.Array) -> tuple[jax.Array, ...]:
        centred = block - origin[(None,) * (block.ndim - 1)]
        return centred, jnp.square(centred)

    first, second = channel_sums(terms, x)
    return first, second


def _power_sums_forward(x: jax.Array, origin: jax.Array):
    return _power_sums(x, origin), (x, origin)


def _power_sums_backward(kept, cotangents):
    x, origin = kept
    first, second = (c[None, None, None, :] for c in cotangents)
    centred = x.astype(jnp.float32) - origin[None, None, None, :]
    return (first + 2.0 * second * centred).astype(x.dtype), jnp.zeros_like(origin)


_power_sums.defvjp(_power_sums_forward, _power_sums_backward)


def normalise(
    x: jax.Array,
    centre: jax.Array,
    factor: jax.Array,
    bias: jax.Array,
    *,
    residual: jax.Array | None = None,
    relu: bool = False,
) -> jax.Array:
    """(x - centre) factor + bias, then `+ residual`, then ReLU; in float32, returned in the dtype of x.

    Args:
        x: (B, H, W, C), any float dtype.
        centre, factor, bias: float32 (C,).
        residual: as x; None: nothing is added.
        relu: whether negative values become 0.
    """
    if form_of("norm_gradient") == "recomputed":
        return _fused(x, centre, factor, bias, residual, relu)
    return _normalised(x, centre, factor, bias, residual, relu)


def _normalised(x, centre, factor, bias, residual, relu: bool) -> jax.Array:
    wide = x.astype(jnp.float32) - centre[None, None, None, :]
    y = (wide * factor[None, None, None, :] + bias[None, None, None, :]).astype(x.dtype)
    if residual is not None:
        y = y + residual
    return jax.nn.relu(y) if relu else y


@partial(jax.custom_vjp, nondiff_argnums=(5,))
def _fused(x, centre, factor, bias, residual, relu: bool) -> jax.Array:
    y = _normalised(x, centre, factor, bias, residual, relu)
    # A sum is read by the next block's convolution and sum, and by the gradient.
    return y if residual is None else stored(y)


def _fused_forward(x, centre, factor, bias, residual, relu: bool):
    y = _fused(x, centre, factor, bias, residual, relu)
    # The next convolution keeps y anyway. Without a residual, x alone tells where y is positive.
    kept_output = y if relu and residual is not None else None
    return y, (x, centre, factor, bias, residual is not None, kept_output)


def _fused_backward(relu: bool, kept, cotangent):
    x, centre, factor, bias, has_residual, output = kept
    masked_by_x = relu and output is None
    # Masked by a stored output it is the residual's gradient too, and the only map beside x that the sums read.
    cotangent = stored(cotangent) if output is None else masked(cotangent, output)
    x = stored(x)

    def passed(g: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The cotangent that the ReLU lets through, and x - centre; channels last, any number of axes."""
        lift = (None,) * (x.ndim - 1)
        centred = x - centre[lift]
        if masked_by_x:
            g = jnp.where(centred * factor[lift] + bias[lift] > 0, g, 0.0)
        return g, centred

    def terms(*blocks: jax.Array) -> tuple[jax.Array, ...]:
        g, centred = passed(*blocks)
        return g, g * centred

    total, moment = channel_sums(terms, cotangent, x)
    g, _ = passed(cotangent.astype(jnp.float32), x.astype(jnp.float32))
    d_x = (g * factor[None, None, None, :]).astype(x.dtype)
    return d_x, -factor * total, moment, total, cotangent if has_residual else None


_fused.defvjp(_fused_forward, _fused_backward)

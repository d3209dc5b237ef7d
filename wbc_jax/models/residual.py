"""The end of a residual block: sum and ReLU, whose gradient masks the incoming one once for all that read it."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from wbc_jax.models.stored import stored


@jax.custom_vjp
def add_relu(shortcut: jax.Array, y: jax.Array) -> jax.Array:
    """`relu(shortcut + y)` of two maps of one shape and dtype, written to memory once, as is its gradient."""
    return stored(jax.nn.relu(shortcut + y))


def masked(cotangent: jax.Array, output: jax.Array) -> jax.Array:
    """What a ReLU with this output passes of a cotangent, written to memory.

    At the end of a block the cotangent is itself a sum, of what the next block's shortcut and convolutions ask for:
    in the loop that masks it, it is added up too, and no other pass reads its terms or the output.
    """
    return stored(jnp.where(output > 0, cotangent, jnp.zeros((), cotangent.dtype)))


def _add_relu_forward(shortcut: jax.Array, y: jax.Array):
    output = add_relu(shortcut, y)
    return output, output


def _add_relu_backward(output: jax.Array, cotangent: jax.Array):
    passed = masked(cotangent, output)
    return passed, passed


add_relu.defvjp(_add_relu_forward, _add_relu_backward)

"""Optimisers, composed from optax in one order: clip, scale, decay, learning rate, and around it accumulation.

RAdam's first steps. The variance of Adam's denominator is intractable while rho_t < 5, which for beta2 = 0.999 and
0.99 means updates 1 to 5. There `optax` (like torch) makes the bias-corrected momentum step `lr * m_hat`, that is
an update as long as the gradient itself; the authors' own code makes none by default. From update 6 on the
rectified Adam step applies, at first small: its factor r_6 is 0.026 for beta2 = 0.999. We keep optax's reading, so
gradients at the start count in full: clip them, or warm up, where the initial loss is steep. optax computes rho_t in
float32, which for beta2 = 0.999 makes r_t smaller than it should be by 1.2 % at update 6 (CPU).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from wbc_jax.config import OptimConfig
from wbc_jax.models.channel_sums import square_sum
from wbc_jax.train.schedules import make_schedule


def make_optimizer(optim: OptimConfig, *, steps_per_epoch: int, epochs: int) -> optax.GradientTransformation:
    """The optimiser that `optim` describes, for a tree of trainable float32 parameters.

    - Clipping is by the global norm of the (averaged) gradient, before anything else.
    - Weight decay is decoupled: `lr * weight_decay * p` is subtracted beside the scaled gradient, for every
      optimiser, so `adam` with decay is `adamw`. Norms and biases, the one-dimensional leaves, are left out.
    - With `accumulate_steps` k, gradients of k batches are averaged and applied with the k-th; the other calls
      return zero updates. The mean over equal batches is the gradient of their union.
    - `sgd` is `m = momentum * m + g; p -= lr * m`.

    Args:
        optim: the numbers.
        steps_per_epoch: batches (not updates) of an epoch, for the schedule.
        epochs: length of the run, for the schedule.

    Raises:
        ValueError: unknown optimiser or schedule.
    """
    parts = [] if optim.clip_norm is None else [_clip_by_global_norm(optim.clip_norm)]
    parts.append(_scaling(optim))
    if optim.weight_decay > 0:
        parts.append(optax.add_decayed_weights(optim.weight_decay, mask=_decays))
    schedule = make_schedule(optim, steps_per_epoch=steps_per_epoch, epochs=epochs)
    tx = optax.chain(*parts, optax.scale_by_learning_rate(schedule))
    if optim.accumulate_steps > 1:
        tx = optax.MultiSteps(tx, every_k_schedule=optim.accumulate_steps).gradient_transformation()
    return _with_standard_promotion(tx)


def update_completed(opt_state: Any) -> jax.Array:
    """bool scalar: did the last call of the optimiser change the parameters, or only gather a gradient?"""
    if isinstance(opt_state, optax.MultiStepsState):
        return jnp.equal(opt_state.mini_step, 0)
    return jnp.ones((), jnp.bool_)


def global_norm(tree: Any) -> jax.Array:
    """Euclidean norm of all leaves together, float32 ().

    `optax.tree.norm` reduces every leaf in one go, which XLA's reduction on a CPU is slow at (`channel_sums`).
    """
    return jnp.sqrt(sum((square_sum(leaf) for leaf in jax.tree.leaves(tree)), jnp.zeros((), jnp.float32)))


def _clip_by_global_norm(limit: float) -> optax.GradientTransformation:
    """`optax.clip_by_global_norm` by the norm that the training step takes anyway, so that it is taken once."""

    def clip(updates: Any, params: Any) -> Any:
        del params
        factor = limit / jnp.maximum(global_norm(updates), limit)
        return jax.tree.map(lambda leaf: leaf * factor, updates)

    return optax.stateless(clip)


def _scaling(optim: OptimConfig) -> optax.GradientTransformation:
    match optim.name:
        case "radam":
            return optax.scale_by_radam(b1=optim.momentum)
        case "adam" | "adamw":
            return optax.scale_by_adam(b1=optim.momentum)
        case "sgd":
            return optax.trace(decay=optim.momentum)
        case _:
            raise ValueError(f"no optimiser {optim.name!r}; there are radam, adam, adamw, sgd")


def _decays(params: Any) -> Any:
    """True for kernels; scales and biases have one axis."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def _with_standard_promotion(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """optax multiplies Python floats by int32 counts, which strict promotion, used by our tests, refuses."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        with jax.numpy_dtype_promotion("standard"):
            return tx.update(updates, state, params)

    return optax.GradientTransformation(tx.init, update)

"""Everything that training changes, in one tree: what a checkpoint holds and a step maps to its successor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import struct

from wbc_jax.models.initialisers import init_variables
from wbc_jax.train.freeze import partition

Tree = Mapping[str, Any]


class TrainState(struct.PyTreeNode):
    """State of a run after `step` batches.

    Attributes:
        step: int32 scalar, batches seen so far; position in the data and randomness follow from it.
        params: float32 parameter tree, frozen parts included.
        batch_stats: float32 BatchNorm statistics; `{}` for a network without BatchNorm.
        opt_state: optax state of the trainable parameters; frozen ones have none.
        ema_params: moving average of `params`, or None when none is kept.
        ema_batch_stats: the same of `batch_stats`: averaged parameters met with the statistics of the newest
            network would be normalised wrongly.
    """

    step: Any
    params: Any
    batch_stats: Any
    opt_state: Any
    ema_params: Any
    ema_batch_stats: Any


def create_state(
    model: nn.Module,
    tx: optax.GradientTransformation,
    key: jax.Array,
    image_size_px: int,
    *,
    ema: bool = False,
    freeze: tuple[str, ...] = (),
) -> TrainState:
    """A state at step 0 with random parameters; the same key gives the same bits.

    Args:
        model: network of the contract `(logits, endpoints) = apply(variables, images, train=...)`.
        tx: optimiser, see `wbc_jax.train.optim.make_optimizer`.
        key: scalar key of the initial parameters.
        image_size_px: side of the square network input, px.
        ema: keep a moving average of the parameters.
        freeze: path prefixes of the parameters that stay as they are; the step needs the same ones.

    Raises:
        ValueError: a prefix in `freeze` names no parameters, or nothing is left to train.
    """
    # The program is one random draw a parameter and runs once: optimising it costs more than it saves. Without,
    # it compiles in 6.8 s of CPU time instead of 22.5 (scam_tiny, 2-core AMD EPYC, jax 0.10.1, 2026-11-23).
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    initialise = _initialiser(model, tx, image_size_px, ema, freeze)
    return jax.jit(initialise, compiler_options=options)(key)


def abstract_state(
    model: nn.Module,
    tx: optax.GradientTransformation,
    image_size_px: int,
    *,
    ema: bool = False,
    freeze: tuple[str, ...] = (),
) -> TrainState:
    """Shapes and dtypes of `create_state`'s result, nothing allocated or compiled: the target of a restore."""
    return jax.eval_shape(_initialiser(model, tx, image_size_px, ema, freeze), jax.random.key(0))


def with_variables(state: TrainState, variables: Tree) -> TrainState:
    """`state` with other parameters and statistics, for example pretrained ones; the average restarts there.

    Args:
        state: the state to start from; its optimiser state is kept, so this belongs before the first step.
        variables: `{"params", "batch_stats"}` of the same structure, shapes and dtypes.
    """
    params, batch_stats = variables["params"], variables.get("batch_stats", {})
    if state.ema_params is None:
        return state.replace(params=params, batch_stats=batch_stats)
    # The average needs arrays of its own: a donated buffer may be given away only once.
    ema_params, ema_batch_stats = jax.tree.map(lambda leaf: jnp.array(leaf), (params, batch_stats))
    return state.replace(
        params=params, batch_stats=batch_stats, ema_params=ema_params, ema_batch_stats=ema_batch_stats
    )


def variables_for_eval(state: TrainState) -> dict[str, Any]:
    """`{"params", "batch_stats"}` to evaluate with: the averages where they are kept."""
    if state.ema_params is None:
        return {"params": state.params, "batch_stats": state.batch_stats}
    return {"params": state.ema_params, "batch_stats": state.ema_batch_stats}


def _initialiser(model, tx, image_size_px: int, ema: bool, freeze: tuple[str, ...]):
    """key -> TrainState, pure. Under jit the network's forward pass is pruned: only initialisers run."""

    def initialise(key: jax.Array) -> TrainState:
        images = jnp.zeros((1, image_size_px, image_size_px, 3), jnp.float32)
        variables = init_variables(model, key, images)
        params = variables["params"]
        trainable, _ = partition(params, freeze)
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats=variables.get("batch_stats", {}),
            opt_state=tx.init(trainable),
            ema_params=params if ema else None,
            ema_batch_stats=variables.get("batch_stats", {}) if ema else None,
        )

    return initialise

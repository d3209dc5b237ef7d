"""Training, evaluation and prediction steps: free functions made once, outside the loop, by pure factories.

Nothing here is jitted, sharded or donated; `wbc_jax.train.parallel` compiles a step for a mesh of devices. A step
draws all its randomness from `fold_in(key(seed), state.step)`, so that a resumed run repeats it exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from wbc_jax.catalog import Task
from wbc_jax.data.batch import Batch
from wbc_jax.models.attribute_groups import group_softmax
from wbc_jax.train.attribute_losses import attribute_expected_correct, attribute_targets
from wbc_jax.train.augment import center
from wbc_jax.train.freeze import merge, partition, restore_frozen
from wbc_jax.train.ghost import apply_in_groups, ghost_groups
from wbc_jax.train.known_attributes import Lookup, known_inputs
from wbc_jax.train.losses import cross_entropy, expected_correct, soft_labels
from wbc_jax.train.objective import Objective, mix
from wbc_jax.train.optim import global_norm, update_completed
from wbc_jax.train.state import TrainState

Augment = Callable[[jax.Array, jax.Array], jax.Array]
"""(key, uint8 images (B, S, S, 3)) -> float32 (B, H, W, 3), normalised."""
Gather = Callable[..., Batch]
"""(data, rows, mask) -> Batch: reads a batch out of data that lives on the devices."""
Sums = dict[str, jax.Array]
"""float32 scalars of one step, to be added over steps and divided once, on the host."""
TrainStep = Callable[..., tuple[TrainState, Sums]]
EvalStep = Callable[..., dict[str, jax.Array]]


class Prediction(NamedTuple):
    """What a network says of B images.

    Attributes:
        probabilities: float32 `(B, K)`.
        attribute_probabilities: float32 `(B, 31)`, the values of each attribute side by side in the order of
            `catalog.ATTRIBUTES`, adding up to 1 within an attribute; None for a network without attributes.
    """

    probabilities: jax.Array
    attribute_probabilities: jax.Array | None


PredictStep = Callable[[Any, jax.Array], Prediction]


class StepKeys(NamedTuple):
    """Keys of one training step, one a purpose."""

    augment: jax.Array
    mixup: jax.Array
    dropout: jax.Array


def make_train_step(
    model: nn.Module,
    tx: optax.GradientTransformation,
    task: Task,
    augment: Augment,
    *,
    seed: int = 0,
    mixup_alpha: float = 0.0,
    label_smoothing: float = 0.0,
    class_weights: tuple[float, ...] | None = None,
    attribute_share: float = 0.0,
    freeze: tuple[str, ...] = (),
    freeze_batch_stats: bool = False,
    ghost_batch_size: int | None = None,
    ema_decay: float | None = None,
    skip_nonfinite_updates: bool = False,
    gather: Gather | None = None,
    known_attributes: Lookup | None = None,
    axis_name: str | None = None,
) -> TrainStep:
    """`step(state, batch) -> (state, sums)`, or `step(state, data, rows, mask)` where `gather` is given.

    Args:
        model: network; its `dtype` field sets the type of activations. Loss and gradients are float32.
        tx: optimiser of the trainable parameters.
        task: gives the number of classes.
        augment: uint8 images to the network's input.
        seed: of augmentation, mixup and dropout.
        mixup_alpha: parameter of mixup's Beta distribution, one lambda a batch; 0: off. Batches must then be full.
        label_smoothing: share of each label spread over all classes.
        class_weights: weight of each class in the loss; None: 1 each.
        attribute_share: weight of the attributes' loss, the mean over all annotated (sample, attribute) pairs, beside
            1 - share of the classes' (DAFFNet, Eq. 1: 0.8). 0: classes only. Above 0 the network must have the
            endpoint `attribute_logits`, else ConfigError at the first trace.
        freeze: path prefixes of parameters that are not differentiated. The BatchNorms among them normalise with
            the batch but keep their stored statistics; with `freeze_batch_stats` they normalise with those.
        freeze_batch_stats: every BatchNorm uses and keeps its stored statistics; dropout stays on.
        ghost_batch_size: BatchNorm statistics over groups of about so many images, see `ghost`; None: over the batch.
        ema_decay: decay per update of `state.ema_params` and `state.ema_batch_stats`; None: no average.
        skip_nonfinite_updates: leave all but `state.step` as it is when loss or gradient is not finite.
        gather: see `Gather`.
        known_attributes: attribute logits that DAFFNet takes in place of its predictor's; they ignore mixup.
        axis_name: pmap axis that the batch is split over; the model then needs `bn_axis_name=axis_name`.

    The sums: `steps`, 1; `count` samples; `loss_sum`, the mean loss times `count`; `correct_sum`, lambda-weighted
    under mixup; `grad_norm`, before clipping, to be divided by `steps`; `nonfinite`, 1 when loss or gradient is not
    finite; `skipped`, 1 when the update was left out: such a step adds 0 to all sums but these two. With an
    `attribute_share` also `attribute_correct_sum` and `attribute_count`, over annotated pairs.
    """
    _check_axis(model, axis_name)
    objective = Objective(
        num_classes=task.num_classes,
        class_weights=class_weights,
        label_smoothing=label_smoothing,
        attribute_share=attribute_share,
        axis_name=axis_name,
    )

    def train_step(state: TrainState, *source: Any) -> tuple[TrainState, Sums]:
        batch = _read(gather, source)
        keys = step_keys(seed, state.step, axis_name)
        images = augment(keys.augment, batch.images)  # (B, H, W, 3)
        targets = objective.targets(batch)
        if mixup_alpha > 0:
            images, targets = mix(keys.mixup, images, targets, mixup_alpha)
        trainable, frozen = partition(state.params, freeze)

        def loss_of(trainable: Any) -> tuple[jax.Array, tuple[Sums, Any]]:
            variables = {"params": merge(trainable, frozen), "batch_stats": state.batch_stats}
            (logits, endpoints), updated = apply_in_groups(
                model,
                variables,
                images,
                1 if ghost_batch_size is None else ghost_groups(len(images), ghost_batch_size),
                dropout=keys.dropout,
                use_running_average=True if freeze_batch_stats else None,
                extra=known_inputs(known_attributes, keys.augment, batch.ids),
            )
            loss, correct = objective.loss(logits, endpoints, targets, batch.mask)
            return loss, (correct, updated.get("batch_stats", {}))

        (loss, (correct, batch_stats)), grads = jax.value_and_grad(loss_of, has_aux=True)(trainable)
        if axis_name is not None:  # shares of one mean over all devices: their sum is the gradient
            loss, grads = jax.lax.psum((loss, grads), axis_name)
        batch_stats = restore_frozen(batch_stats, state.batch_stats, freeze)
        new_state = _update(tx, state, grads, batch_stats, freeze, ema_decay)

        grad_norm = global_norm(grads)
        finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
        count = _total(batch.mask, axis_name)
        sums = {"loss_sum": loss * count, "count": count, "grad_norm": grad_norm}
        sums |= {name: _total(value, axis_name) for name, value in correct.items()}
        sums["steps"] = jnp.ones((), jnp.float32)
        skipped = ~finite if skip_nonfinite_updates else jnp.zeros((), jnp.bool_)
        if skip_nonfinite_updates:
            new_state = _select(finite, new_state, state.replace(step=new_state.step))
            sums = _select(finite, sums, jax.tree.map(jnp.zeros_like, sums))
        flags = {"nonfinite": ~finite, "skipped": skipped}
        return new_state, sums | {name: flag.astype(jnp.float32) for name, flag in flags.items()}

    return train_step


def make_eval_step(
    model: nn.Module,
    task: Task,
    *,
    image_size_px: int,
    flip_average: bool = False,
    gather: Gather | None = None,
) -> EvalStep:
    """`eval_step(variables, batch)`, or `eval_step(variables, data, rows, mask)` where `gather` is given.

    It returns `probabilities` and `logits`, float32 `(B, K)`, for every row, padding included, and the masked sums
    `loss_sum` (plain cross entropy), `correct_sum` and `count`. `softmax(logits)` is `probabilities`, also where
    these are the mean over the four mirror images (`flip_average`). A network with the endpoint `attribute_logits`
    gives `attribute_probabilities` too, float32 `(B, 31)`, and the masked sums over annotated pairs of sample and
    attribute, `attribute_correct_sum` and `attribute_count`.
    """

    def eval_step(variables: Any, *source: Any) -> dict[str, jax.Array]:
        batch = _read(gather, source)
        logits, attributes = forward(model, variables, batch.images, image_size_px, flip_average)
        targets = soft_labels(batch.labels, task.num_classes)
        out = {
            "probabilities": jax.nn.softmax(logits, axis=-1),
            "logits": logits,
            "loss_sum": jnp.sum(cross_entropy(logits, targets) * batch.mask),
            "correct_sum": jnp.sum(expected_correct(logits, targets) * batch.mask),
            "count": jnp.sum(batch.mask),
        }
        if attributes is None:
            return out
        annotated = attribute_targets(batch.attributes, batch.mask)
        return out | {
            "attribute_probabilities": attributes,
            "attribute_correct_sum": jnp.sum(attribute_expected_correct(attributes, annotated)),
            "attribute_count": jnp.sum(annotated),
        }

    return eval_step


def make_predict_step(model: nn.Module, *, image_size_px: int, flip_average: bool = False) -> PredictStep:
    """`predict(variables, images)`: uint8 `(B, S, S, 3)` at the store's size -> `Prediction`."""

    def predict(variables: Any, images: jax.Array) -> Prediction:
        logits, attributes = forward(model, variables, images, image_size_px, flip_average)
        return Prediction(jax.nn.softmax(logits, axis=-1), attributes)

    return predict


def step_keys(seed: int, step: jax.Array, axis_name: str | None = None) -> StepKeys:
    """Keys of batch `step`. Over a pmap axis, augmentation and dropout differ by device, mixup's lambda does not."""
    augment, mix, dropout = jax.random.split(jax.random.fold_in(jax.random.key(seed), step), 3)
    if axis_name is not None:
        index = jax.lax.axis_index(axis_name)
        augment, dropout = jax.random.fold_in(augment, index), jax.random.fold_in(dropout, index)
    return StepKeys(augment=augment, mixup=mix, dropout=dropout)


def _update(tx, state: TrainState, grads, batch_stats, freeze, ema_decay) -> TrainState:
    """State after one batch. Frozen leaves are handed on untouched, in the moving average too."""
    trainable, frozen = partition(state.params, freeze)
    updates, opt_state = tx.update(grads, state.opt_state, trainable)
    trainable = jax.tree.map(jnp.add, trainable, updates)
    ema_params, ema_batch_stats = state.ema_params, state.ema_batch_stats
    if ema_decay is not None:
        averaged, fixed = partition(ema_params, freeze)
        before = (averaged, ema_batch_stats)
        # In this form the average of a value that stays, such as a frozen statistic, stays bit for bit.
        blended = jax.tree.map(lambda a, p: a + (p - a) * (1.0 - ema_decay), before, (trainable, batch_stats))
        averaged, ema_batch_stats = _select(update_completed(opt_state), blended, before)
        ema_params = merge(averaged, fixed)
    return TrainState(
        step=state.step + 1,
        params=merge(trainable, frozen),
        batch_stats=batch_stats,
        opt_state=opt_state,
        ema_params=ema_params,
        ema_batch_stats=ema_batch_stats,
    )


def forward(
    model: nn.Module, variables: Any, images_u8: jax.Array, image_size_px: int, flip_average: bool = False
) -> tuple[jax.Array, jax.Array | None]:
    """The network in evaluation on uint8 `(B, S, S, 3)`.

    Returns:
        logits float32 `(B, K)`; over mirror images, the logarithm of the mean probabilities. And the attributes'
        probabilities float32 `(B, 31)`, the mean over mirror images, or None for a network without them.
    """
    images = center(images_u8, image_size_px)  # (B, H, W, 3)
    if not flip_average:
        logits, endpoints = model.apply(variables, images, train=False)
        return logits.astype(jnp.float32), _attribute_probabilities(endpoints)
    views = jnp.stack([images, images[:, ::-1], images[:, :, ::-1], images[:, ::-1, ::-1]], axis=1)
    # One pass over 4B images; neighbouring rows are views of one image, so a split batch stays where it is.
    logits, endpoints = model.apply(variables, views.reshape(-1, *images.shape[1:]), train=False)  # (4B, K)
    log_probabilities = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    by_view = log_probabilities.reshape(images.shape[0], 4, -1)  # (B, 4, K)
    mean = jax.nn.logsumexp(by_view, axis=1) - jnp.log(jnp.float32(4.0))  # (B, K)
    attributes = _attribute_probabilities(endpoints)  # (4B, 31)
    if attributes is None:
        return mean, None
    return mean, jnp.mean(attributes.reshape(images.shape[0], 4, -1), axis=1)  # (B, 31)


def _attribute_probabilities(endpoints: Any) -> jax.Array | None:
    logits = endpoints.get("attribute_logits")
    return None if logits is None else group_softmax(logits)


def _read(gather: Gather | None, source: tuple[Any, ...]) -> Batch:
    if gather is not None:
        return gather(*source)
    (batch,) = source
    return batch


def _total(values: jax.Array, axis_name: str | None) -> jax.Array:
    total = jnp.sum(values)
    return total if axis_name is None else jax.lax.psum(total, axis_name)


def _select(condition: jax.Array, when_true: Any, when_false: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), when_true, when_false)


def _check_axis(model: nn.Module, axis_name: str | None) -> None:
    found = getattr(model, "bn_axis_name", axis_name)
    if found != axis_name:
        raise ValueError(
            f"the model averages BatchNorm statistics over {found!r}, the step runs over {axis_name!r}; "
            f"create the model with bn_axis_name={axis_name!r}"
        )

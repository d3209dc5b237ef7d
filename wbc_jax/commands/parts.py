"""The compiled pieces of a run: network, state, steps and batches of a config."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np

from wbc_jax.commands.predictor_cache import known_attributes
from wbc_jax.commands.run import build_model
from wbc_jax.commands.together import fits_together
from wbc_jax.commands.weights import load_weights
from wbc_jax.config import Config
from wbc_jax.config_morphology import has_frozen_predictor
from wbc_jax.data.experiment import Experiment, Samples
from wbc_jax.data.order import OrderSpec, rows_for_step
from wbc_jax.data.placement import place
from wbc_jax.data.resident import fits, gather, load_resident, resident_bytes
from wbc_jax.data.stream import stream_batches
from wbc_jax.runtime.devices import activation_dtype, make_mesh
from wbc_jax.runtime.exchange import share_tree
from wbc_jax.train.augment import AugmentSpec, augment, center
from wbc_jax.train.optim import make_optimizer
from wbc_jax.train.parallel import (
    CompiledStep,
    compile_eval_step,
    compile_train_step,
    pmap_train_step,
    replicate,
    replicated,
    split_by_row,
)
from wbc_jax.train.schedules import scaled
from wbc_jax.train.state import TrainState, create_state, with_variables
from wbc_jax.train.steps import make_eval_step, make_train_step


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The compiled pieces of a run.

    Attributes:
        model: network with the run's activation type.
        state: at step 0, pretrained weights in place, on the mesh.
        train_step: compiled; counts its traces.
        eval_step: compiled; counts its traces.
        batches: step -> iterator of the arguments that `train_step` takes after the state.
        order: decides the images of each step.
        mesh: the devices.
    """

    model: Any
    state: TrainState
    train_step: CompiledStep
    eval_step: CompiledStep
    batches: Callable[[int], Iterator[tuple[Any, ...]]]
    order: OrderSpec
    mesh: Any


def build_parts(config: Config, experiment: Experiment) -> Parts:
    """Network, state, compiled steps and batches of a config."""
    mesh = make_mesh(config.runtime.num_devices)
    task, samples = experiment.task, experiment.train
    axis_name = "data" if config.train.execution == "pmap" else None
    dtype = activation_dtype(config.train.precision)
    model = build_model(config.model, task.num_classes, dtype=dtype, bn_axis_name=axis_name)
    order = OrderSpec(
        seed=config.train.seed,
        num_samples=len(samples.rows),
        batch_size=config.train.batch_size,
        weights=experiment.sampling_weights,
    )
    tx = make_optimizer(
        scaled(config.optim, config.train.batch_size),
        steps_per_epoch=order.steps_per_epoch,
        epochs=config.train.epochs,
    )
    resident, reason = _choose_loader(config, samples, mesh)
    print(f"images {'live on the devices' if resident else 'are streamed'}: {reason}")
    evaluation_model = build_model(config.model, task.num_classes, dtype=dtype)
    state = _initial_state(config, model, tx, mesh)
    frozen = {"params": state.params, "batch_stats": state.batch_stats}
    step = make_train_step(
        model,
        tx,
        task,
        _augmentation(config),
        seed=config.train.seed,
        mixup_alpha=config.augment.mixup_alpha,
        label_smoothing=config.train.label_smoothing,
        class_weights=experiment.class_weights,
        attribute_share=config.train.attribute_share,
        freeze=frozen_parts(config),
        freeze_batch_stats=config.train.freeze_batch_stats,
        ghost_batch_size=config.train.ghost_batch_size,
        ema_decay=config.optim.ema_decay,
        skip_nonfinite_updates=config.train.skip_nonfinite_updates,
        gather=gather if resident else None,
        known_attributes=known_attributes(config, samples, evaluation_model, frozen),
        axis_name=axis_name,
    )
    compiled = pmap_train_step if axis_name else compile_train_step
    eval_step = make_eval_step(
        evaluation_model, task, image_size_px=config.data.image_size_px, flip_average=config.eval.flip_average
    )
    return Parts(
        model=evaluation_model,
        state=state,
        train_step=compiled(step, mesh, resident=resident),
        eval_step=compile_eval_step(eval_step, mesh),
        batches=(_resident_batches if resident else _streamed_batches)(config, samples, order, mesh),
        order=order,
        mesh=mesh,
    )


def frozen_parts(config: Config) -> tuple[str, ...]:
    """Path prefixes of the parameters that stay as they are: those asked for, and DAFFNet's frozen predictor."""
    asked = config.train.freeze
    return (*asked, "map") if has_frozen_predictor(config) and "map" not in asked else asked


def _augmentation(config: Config) -> Callable[[jax.Array, jax.Array], jax.Array]:
    chosen, size = config.augment, config.data.image_size_px
    if not chosen.enabled:
        return lambda key, images: center(images, size)
    spec = AugmentSpec(
        image_size_px=size,
        flip=chosen.flip,
        rotation_deg=chosen.rotation_deg,
        translation=chosen.translation,
        scale=chosen.scale,
        crop_area=chosen.crop_area,
        crop_ratio=chosen.crop_ratio,
        brightness=chosen.brightness,
        contrast=chosen.contrast,
        saturation=chosen.saturation,
        hue=chosen.hue,
        colour_probability=chosen.colour_probability,
        stain=chosen.stain,
        exact_share=chosen.exact_share,
    )
    return partial(augment, spec=spec)


def _choose_loader(config: Config, samples: Samples, mesh: Any) -> tuple[bool, str]:
    if config.data.loader != "auto":
        return config.data.loader == "resident", f"data.loader is {config.data.loader}"
    here = [device for device in mesh.devices.flat if device.process_index == jax.process_index()]
    return fits_together(fits(resident_bytes(samples.store, len(samples.rows)), here))


def _initial_state(config: Config, model: Any, tx: Any, mesh: Any) -> TrainState:
    state = create_state(
        model,
        tx,
        jax.random.key(config.train.seed),
        config.data.image_size_px,
        ema=config.optim.ema_decay is not None,
        freeze=frozen_parts(config),
    )
    variables, lines = load_weights(config.model, {"params": state.params, "batch_stats": state.batch_stats})
    if lines:
        print("\n".join(lines))
        state = with_variables(state, variables)
    return replicate(share_tree(state), mesh)


def _resident_batches(
    config: Config, samples: Samples, order: OrderSpec, mesh: Any
) -> Callable[[int], Iterator[tuple[Any, ...]]]:
    data = load_resident(
        samples.store,
        samples.rows,
        samples.labels,
        samples.attributes,
        attribute_weights=samples.attribute_weights,
        sharding=replicated(mesh),
    )
    sharding = split_by_row(mesh)
    mask = place(np.ones(order.batch_size, np.float32), sharding)

    def batches(step: int) -> Iterator[tuple[Any, ...]]:
        while True:
            rows = rows_for_step(order, step).astype(np.int32)
            yield data, place(rows, sharding), mask
            step += 1

    return batches


def _streamed_batches(
    config: Config, samples: Samples, order: OrderSpec, mesh: Any
) -> Callable[[int], Iterator[tuple[Any, ...]]]:
    total_steps = order.steps_per_epoch * config.train.epochs

    def batches(step: int) -> Iterator[tuple[Any, ...]]:
        with stream_batches(
            samples.store,
            samples.rows,
            samples.labels,
            samples.attributes,
            order,
            start_step=step,
            stop_step=total_steps,
            attribute_weights=samples.attribute_weights,
            workers=config.data.stream_workers,
            sharding=split_by_row(mesh),
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        ) as stream:
            for batch in stream:
                yield (batch,)

    return batches

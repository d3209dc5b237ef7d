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
from wbc_jax.errors import ConfigError
from wbc_jax.runtime.devices import activation_dtype, make_mesh
from wbc_jax.runtime.exchange import share_tree
from wbc_jax.train.augment import AugmentSpec, augment, center
from wbc_jax.train.image_sizes import (
    StepBySize,
    all_image_sizes,
    image_sizes_between,
    shrink,
    shrunk_store_px,
    sized_batches,
)
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
        train_step: compiled for each image size, see `train.image_sizes`; counts its traces.
        eval_step: compiled; counts its traces.
        batches: step -> iterator of the arguments that `train_step` takes after the state.
        sizes_from: step -> the image sizes from there to the end of the run, px.
        order: decides the images of each step.
        mesh: the devices.
    """

    model: Any
    state: TrainState
    train_step: StepBySize
    eval_step: CompiledStep
    batches: Callable[[int], Iterator[tuple[Any, ...]]]
    sizes_from: Callable[[int], tuple[int, ...]]
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
    step_of_size = partial(
        make_train_step,
        model,
        tx,
        task,
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
    schedule, size_px = config.train.image_size_schedule, config.data.image_size_px
    sizes = all_image_sizes(schedule, size_px)
    eval_step = make_eval_step(
        evaluation_model, task, image_size_px=config.data.image_size_px, flip_average=config.eval.flip_average
    )
    _require_any_size(evaluation_model, sizes)
    return Parts(
        model=evaluation_model,
        state=state,
        train_step=StepBySize(
            {
                size: compiled(step_of_size(_augmentation(config, size)), mesh, resident=resident)
                for size in sizes
            }
        ),
        eval_step=compile_eval_step(eval_step, mesh),
        batches=sized_batches(
            (_resident_batches if resident else _streamed_batches)(config, samples, order, mesh),
            schedule,
            steps_per_epoch=order.steps_per_epoch,
            image_size_px=size_px,
        ),
        sizes_from=partial(
            image_sizes_between,
            schedule,
            stop=order.steps_per_epoch * config.train.epochs,
            steps_per_epoch=order.steps_per_epoch,
            image_size_px=size_px,
        ),
        order=order,
        mesh=mesh,
    )


def frozen_parts(config: Config) -> tuple[str, ...]:
    """Path prefixes of the parameters that stay as they are: those asked for, and DAFFNet's frozen predictor."""
    asked = config.train.freeze
    return (*asked, "map") if has_frozen_predictor(config) and "map" not in asked else asked


def _require_any_size(model: Any, sizes_px: tuple[int, ...]) -> None:
    """ConfigError where the network's parameters depend on the side of its images."""
    if len(sizes_px) == 1:
        return

    def shapes(size_px: int) -> Any:
        images = jax.ShapeDtypeStruct((1, size_px, size_px, 3), np.float32)
        return jax.eval_shape(partial(model.init, train=False), jax.random.key(0), images)["params"]

    full = shapes(sizes_px[-1])
    for size_px in sizes_px[:-1]:
        if shapes(size_px) != full:
            raise ConfigError(
                f"at {size_px} px the network has parameters of another shape than at {sizes_px[-1]} px",
                expected="a network that takes images of any size",
                where="train.image_size_schedule",
                remedy="leave the schedule empty, or choose a convolutional network",
            )


def _augmentation(config: Config, size_px: int) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """From the store's images to the network's input of `size_px`, shrunk first where that is not the full size."""
    full_px, store_px = config.data.image_size_px, config.data.store_size_px
    side_px = shrunk_store_px(store_px, size_px, full_px)
    change = _changes(config, size_px)
    if size_px == full_px or side_px >= store_px:
        return change
    return lambda key, images: change(key, shrink(images, side_px))


def _changes(config: Config, size_px: int) -> Callable[[jax.Array, jax.Array], jax.Array]:
    chosen = config.augment
    if not chosen.enabled:
        return lambda key, images: center(images, size_px)
    spec = AugmentSpec(
        image_size_px=size_px,
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

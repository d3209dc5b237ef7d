"""What `wbc-jax train` does between an open run directory and a finished one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from wbc_jax.commands.conclude import conclude
from wbc_jax.commands.run import build_model, write_card
from wbc_jax.config import Config
from wbc_jax.config_json import digest
from wbc_jax.data.experiment import Experiment, Samples
from wbc_jax.data.order import OrderSpec, rows_for_step
from wbc_jax.data.resident import fits, gather, load_resident, resident_bytes
from wbc_jax.data.splits import split_to_json
from wbc_jax.data.stream import eval_stream, stream_batches
from wbc_jax.errors import EXIT_OK, DataError
from wbc_jax.evaluate import confusion
from wbc_jax.models.summary import count_parameters
from wbc_jax.runtime.checkpoints import Checkpoints
from wbc_jax.runtime.devices import activation_dtype, make_mesh
from wbc_jax.runtime.goodput import Goodput
from wbc_jax.runtime.json_files import write_json
from wbc_jax.runtime.logs import MetricsLog, TensorBoardLog
from wbc_jax.runtime.progress import TrainProgress
from wbc_jax.runtime.rundir import RunDir
from wbc_jax.runtime.signals import SignalFlag
from wbc_jax.train.augment import AugmentSpec, augment, center
from wbc_jax.train.loop import Diverged, LoopOutcome, LoopPlan, run_loop
from wbc_jax.train.optim import make_optimizer
from wbc_jax.train.parallel import (
    CompiledStep,
    compile_eval_step,
    compile_train_step,
    pmap_train_step,
    replicate,
)
from wbc_jax.train.schedules import learning_rate_at
from wbc_jax.train.state import TrainState, create_state, variables_for_eval, with_variables
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


def run_training(config: Config, experiment: Experiment, run_dir: RunDir) -> int:
    """Trains and concludes; returns the exit code."""
    path, task = run_dir.path, experiment.task
    write_json(path / "split.json", split_to_json(experiment.split))
    print(experiment.summary())
    timer = Goodput()
    with timer.measure("compile"):
        parts = build_parts(config, experiment)
    num_parameters = count_parameters(parts.state.params)
    write_card(path, config, task, num_parameters)
    print(
        f"{config.model.name}: {num_parameters:,} parameters, {task.num_classes} classes; run directory {path}"
    )

    run_dir.set_state("running")
    try:
        with SignalFlag(report=print) as flag:
            outcome = _loop(config, experiment, parts, run_dir.path, timer, flag)
    except Diverged as error:
        write_json(path / "nonfinite.json", error.report)
        run_dir.set_state("diverged", step=error.report["step"])
        raise
    if outcome.reason == "interrupted":
        run_dir.set_state("interrupted", step=outcome.step)
        print(f"interrupted at step {outcome.step}, saved; go on with: wbc-jax train --run-dir {path}")
        return flag.exit_code or EXIT_OK

    def predict(variables: Any, samples: Samples, batch_size: int) -> tuple[np.ndarray, float]:
        return predict_samples(parts.eval_step, replicate(variables, parts.mesh), samples, batch_size)

    conclude(config, experiment, predict, path, outcome, timer)
    traces = {"train": parts.train_step.traces, "evaluate": parts.eval_step.traces}
    write_json(
        path / "timings.json", {"seconds": timer.seconds(), "goodput": timer.goodput(), "traces": traces}
    )
    run_dir.set_state("finished", step=outcome.step)
    return EXIT_OK


def _loop(
    config: Config, experiment: Experiment, parts: Parts, path: Path, timer: Goodput, flag: SignalFlag
) -> LoopOutcome:
    """Restores what there is and runs the loop over it."""
    plan = loop_plan(config, parts.order)
    digests = {"config": digest(config), "data": experiment.digest}
    with contextlib.ExitStack() as stack:
        checkpoints = stack.enter_context(Checkpoints(path / "checkpoints", config.checkpoint.keep))
        restored = checkpoints.restore_latest(parts.state)
        state, start, meta = (parts.state, 0, {}) if restored is None else restored
        _require_same_data(meta, experiment, path)
        if start:
            print(f"resumed at step {start} of {plan.total_steps}")
        logs: list[Any] = [stack.enter_context(MetricsLog(path / "metrics.jsonl"))]
        if config.log.tensorboard:
            logs.append(stack.enter_context(TensorBoardLog(path / "tensorboard")))
        for log in logs:
            log.rewind(start)
        bar = stack.enter_context(
            TrainProgress(plan.total_steps, plan.steps_per_epoch, config.train.batch_size, start_step=start)
        )
        return run_loop(
            state,
            plan,
            train_step=lambda state, batch: parts.train_step(state, *batch),
            batches=parts.batches,
            validate=_validation(config, experiment, parts),
            learning_rate=partial(
                learning_rate_at,
                config.optim,
                steps_per_epoch=plan.steps_per_epoch,
                epochs=config.train.epochs,
            ),
            checkpoints=_Stamped(checkpoints, digests),
            observer=_Observer(logs, bar, timer),
            timer=timer,
            history=logs[0].rows(),
            meta=meta,
            stop_requested=lambda: flag.requested,
            describe_step=lambda step: _describe_step(step, parts, experiment.train),
        )


def loop_plan(config: Config, order: OrderSpec) -> LoopPlan:
    """When to log, save, validate and stop."""
    return LoopPlan(
        steps_per_epoch=order.steps_per_epoch,
        total_steps=order.steps_per_epoch * config.train.epochs,
        log_every_steps=config.log.every_steps,
        save_every_steps=config.checkpoint.every_steps,
        eval_every_epochs=config.eval.every_epochs,
        select=config.eval.select,
        patience_epochs=config.train.early_stop_patience_epochs,
        tolerate_nonfinite=config.train.skip_nonfinite_updates,
    )


@dataclass(frozen=True)
class _Stamped:
    """Checkpoints that carry the digests of config and data."""

    checkpoints: Checkpoints
    digests: dict[str, str]

    def save(self, step: int, state: Any, extra: dict[str, Any]) -> None:
        self.checkpoints.save(step, state, {**extra, "digests": self.digests})

    def save_best(self, step: int, state: Any, extra: dict[str, Any]) -> None:
        self.checkpoints.save_best(step, state, {**extra, "digests": self.digests})


@dataclass(frozen=True)
class _Observer:
    """Rows to the logs, the newest scores to the bar."""

    logs: list[Any]
    bar: TrainProgress
    timer: Goodput

    def row(self, row: dict[str, Any]) -> None:
        for log in self.logs:
            log.append(row)
        shown = {"train.loss": "loss", "train.accuracy": "accuracy", "val.accuracy": "val accuracy"}
        self.bar.show({label: row[name] for name, label in shown.items() if name in row})

    def step(self, step: int) -> None:
        self.bar.step(step, self.timer.share("input"))

    def note(self, text: str) -> None:
        self.bar.note(text)


def _require_same_data(meta: dict[str, Any], experiment: Experiment, path: Path) -> None:
    found = meta.get("digests", {}).get("data", experiment.digest)
    if found != experiment.digest:
        raise DataError(
            f"the data set now has digest {experiment.digest[:16]}",
            expected=f"{found[:16]}, as when this run was started",
            where=str(path),
            remedy="restore the images, or start a new run on the present ones",
        )


def _describe_step(step: int, parts: Parts, samples: Samples) -> dict[str, Any]:
    rows = samples.rows[rows_for_step(parts.order, step)]
    ids = samples.store.samples.ids
    return {"images": [ids[row] for row in rows]}


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
    tx = make_optimizer(config.optim, steps_per_epoch=order.steps_per_epoch, epochs=config.train.epochs)
    resident, reason = _choose_loader(config, samples, mesh)
    print(f"images {'live on the devices' if resident else 'are streamed'}: {reason}")
    step = make_train_step(
        model,
        tx,
        task,
        _augmentation(config),
        seed=config.train.seed,
        mixup_alpha=config.augment.mixup_alpha,
        label_smoothing=config.train.label_smoothing,
        class_weights=experiment.class_weights,
        freeze=config.train.freeze,
        freeze_batch_stats=config.train.freeze_batch_stats,
        ema_decay=config.optim.ema_decay,
        skip_nonfinite_updates=config.train.skip_nonfinite_updates,
        gather=gather if resident else None,
        axis_name=axis_name,
    )
    compiled = pmap_train_step if axis_name else compile_train_step
    evaluation_model = build_model(config.model, task.num_classes, dtype=dtype)
    eval_step = make_eval_step(
        evaluation_model, task, image_size_px=config.data.image_size_px, flip_average=config.eval.flip_average
    )
    return Parts(
        model=evaluation_model,
        state=_initial_state(config, model, tx, mesh),
        train_step=compiled(step, mesh, resident=resident),
        eval_step=compile_eval_step(eval_step, mesh),
        batches=(_resident_batches if resident else _streamed_batches)(config, samples, order, mesh),
        order=order,
        mesh=mesh,
    )


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
        brightness=chosen.brightness,
        contrast=chosen.contrast,
        saturation=chosen.saturation,
        hue=chosen.hue,
        stain=chosen.stain,
        exact_share=chosen.exact_share,
    )
    return partial(augment, spec=spec)


def _choose_loader(config: Config, samples: Samples, mesh: Any) -> tuple[bool, str]:
    if config.data.loader != "auto":
        return config.data.loader == "resident", f"data.loader is {config.data.loader}"
    return fits(resident_bytes(samples.store, len(samples.rows)), list(mesh.devices.flat))


def _initial_state(config: Config, model: Any, tx: Any, mesh: Any) -> TrainState:
    from wbc_jax.weights.load import load_pretrained_into

    state = create_state(
        model,
        tx,
        jax.random.key(config.train.seed),
        config.data.image_size_px,
        ema=config.optim.ema_decay is not None,
        freeze=config.train.freeze,
    )
    chosen = config.model
    sources = (
        (chosen.pretrained, chosen.name, ""),
        (chosen.pretrained_resnet, "resnet50", "resnet"),
        (chosen.pretrained_densenet, "densenet121", "densenet"),
    )
    given = [(path, architecture, prefix) for path, architecture, prefix in sources if path is not None]
    if given:
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        for path, architecture, prefix in given:
            variables, report = load_pretrained_into(variables, path, architecture, prefix)
            print(report)
        state = with_variables(state, variables)
    return replicate(state, mesh)


def _resident_batches(
    config: Config, samples: Samples, order: OrderSpec, mesh: Any
) -> Callable[[int], Iterator[tuple[Any, ...]]]:
    from wbc_jax.train.parallel import replicated, split_by_row

    data = load_resident(
        samples.store, samples.rows, samples.labels, samples.attributes, sharding=replicated(mesh)
    )
    sharding = split_by_row(mesh)
    mask = jax.device_put(np.ones(order.batch_size, np.float32), sharding)

    def batches(step: int) -> Iterator[tuple[Any, ...]]:
        while True:
            rows = rows_for_step(order, step).astype(np.int32)
            yield data, jax.device_put(rows, sharding), mask
            step += 1

    return batches


def _streamed_batches(
    config: Config, samples: Samples, order: OrderSpec, mesh: Any
) -> Callable[[int], Iterator[tuple[Any, ...]]]:
    from wbc_jax.train.parallel import split_by_row

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
            workers=config.data.stream_workers,
            sharding=split_by_row(mesh),
        ) as stream:
            for batch in stream:
                yield (batch,)

    return batches


def predict_samples(
    eval_step: Callable[..., Any], variables: Any, samples: Samples, batch_size: int
) -> tuple[np.ndarray, float]:
    """Probabilities `(n, K)` of every sample, in order, and the mean loss; exact for any batch size."""
    kept: list[np.ndarray] = []
    loss_sum = count = 0.0
    for batch in eval_stream(samples.store, samples.rows, samples.labels, samples.attributes, batch_size):
        out = jax.device_get(eval_step(variables, batch))
        kept.append(out["probabilities"][: int(out["count"])])
        loss_sum += float(out["loss_sum"])
        count += float(out["count"])
    return np.concatenate(kept), loss_sum / max(count, 1.0)


def _validation(
    config: Config, experiment: Experiment, parts: Parts
) -> Callable[[TrainState], dict[str, float]]:
    samples, num_classes = experiment.val, experiment.task.num_classes

    def validate(state: TrainState) -> dict[str, float]:
        probabilities, loss = predict_samples(
            parts.eval_step, variables_for_eval(state), samples, config.eval.batch_size
        )
        counts = confusion.confusion_counts(samples.labels, probabilities.argmax(axis=1), num_classes)
        scores = confusion.scores(counts)
        names = ("accuracy", "balanced_accuracy", "macro_f1")
        return {"loss": loss, **{name: float(scores[name]) for name in names}}

    return validate

"""What `wbc-jax train` does between an open run directory and a finished one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax

from wbc_jax.commands.ahead import compile_ahead
from wbc_jax.commands.conclude import conclude
from wbc_jax.commands.parts import Parts, build_parts
from wbc_jax.commands.run import write_card
from wbc_jax.commands.scoring import validation
from wbc_jax.commands.together import (
    end_following,
    follow,
    predict_together,
    restore_together,
    stop_together,
    without_place,
)
from wbc_jax.config import Config
from wbc_jax.config_json import digest
from wbc_jax.data.experiment import Experiment, Samples
from wbc_jax.data.order import OrderSpec, rows_for_step
from wbc_jax.data.splits import split_to_json
from wbc_jax.errors import EXIT_OK, DataError
from wbc_jax.models.summary import count_parameters
from wbc_jax.runtime.checkpoints import Checkpoints
from wbc_jax.runtime.exchange import is_first, share_json
from wbc_jax.runtime.goodput import Goodput
from wbc_jax.runtime.json_files import write_json
from wbc_jax.runtime.logs import MetricsLog, TensorBoardLog
from wbc_jax.runtime.progress import TrainProgress
from wbc_jax.runtime.rundir import FollowedRunDir, RunDir
from wbc_jax.runtime.signals import SignalFlag
from wbc_jax.runtime.startup import StartUp
from wbc_jax.train.image_sizes import StepBySize
from wbc_jax.train.loop import Diverged, LoopOutcome, LoopPlan, run_loop
from wbc_jax.train.parallel import split_by_row
from wbc_jax.train.schedules import learning_rate_at, scaled


def run_training(
    config: Config,
    experiment: Experiment,
    run_dir: RunDir | FollowedRunDir,
    *,
    resume: Path | None = None,
    startup: StartUp | None = None,
) -> int:
    """Trains and concludes, together with the other processes of the run; returns the exit code.

    Args:
        config: of the run.
        experiment: its data.
        run_dir: open.
        resume: directory to name when telling how to go on; None: `run_dir`.
        startup: running since the command was given; None: it starts here.
    """
    startup = startup or StartUp()
    path, task = run_dir.path, experiment.task
    print(experiment.summary())
    timer = Goodput()
    with timer.measure("compile"):
        parts = build_parts(config, experiment)
    startup.ends("build")
    num_parameters = count_parameters(parts.state.params)
    if is_first():
        write_json(path / "split.json", split_to_json(experiment.split))
        annotated = experiment.store.samples.attributes[experiment.split.train]
        write_card(path, config, task, num_parameters, annotated)
    print(
        f"{config.model.name}: {num_parameters:,} parameters, {task.num_classes} classes; run directory {path}"
    )

    run_dir.set_state("running")
    try:
        with SignalFlag(report=print) as flag:
            outcome = _loop(config, experiment, parts, run_dir.path, timer, flag, startup)
    except Diverged as error:
        if is_first():
            write_json(path / "nonfinite.json", error.report)
        run_dir.set_state("diverged", step=error.report["step"])
        raise
    if outcome.reason == "interrupted":
        run_dir.set_state("interrupted", step=outcome.step)
        print(
            f"interrupted at step {outcome.step}, saved; go on with: wbc-jax train --run-dir {resume or path}"
        )
        return flag.exit_code or EXIT_OK

    if not is_first():
        follow(parts.eval_step, parts.mesh, experiment)
        return EXIT_OK
    print(startup.line())
    predict = predict_together(parts.eval_step, parts.mesh, experiment)
    conclude(config, experiment, predict, path, outcome, timer)
    end_following()
    traces = {"train": parts.train_step.traces, "evaluate": parts.eval_step.traces}
    timings = {"seconds": timer.seconds(), "goodput": timer.goodput(), "startup": startup.to_json()}
    write_json(path / "timings.json", {**timings, "traces": traces})
    run_dir.set_state("finished", step=outcome.step)
    return EXIT_OK


def _loop(
    config: Config,
    experiment: Experiment,
    parts: Parts,
    path: Path,
    timer: Goodput,
    flag: SignalFlag,
    startup: StartUp,
) -> LoopOutcome:
    """Restores what there is and runs the loop over it."""
    plan = loop_plan(config, parts.order)
    digests = {"config": digest(without_place(config)), "data": experiment.digest}
    with contextlib.ExitStack() as stack:
        checkpoints: Checkpoints | None = None
        logs: list[Any] = []
        if is_first():
            checkpoints = stack.enter_context(Checkpoints(path / "checkpoints", config.checkpoint.keep))
            logs.append(stack.enter_context(MetricsLog(path / "metrics.jsonl")))
            if config.log.tensorboard:
                logs.append(stack.enter_context(TensorBoardLog(path / "tensorboard")))
        restored = restore_together(checkpoints, parts.state, parts.mesh)
        state, start, meta = (parts.state, 0, {}) if restored is None else restored
        _require_same_data(meta, experiment, path)
        if start:
            print(f"resumed at step {start} of {plan.total_steps}")
        for log in logs:
            log.rewind(start)
        bar = stack.enter_context(
            TrainProgress(plan.total_steps, plan.steps_per_epoch, config.train.batch_size, start_step=start)
        )
        with timer.measure("compile"):
            batches, startup.programs = compile_ahead(
                parts, state, start, experiment.val, config.eval.batch_size
            )
        startup.ends("compile")
        return run_loop(
            state,
            plan,
            train_step=_noting_the_first(parts.train_step, startup),
            batches=batches,
            validate=validation(config, experiment, parts.eval_step, split_by_row(parts.mesh)),
            learning_rate=partial(
                learning_rate_at,
                scaled(config.optim, config.train.batch_size),
                steps_per_epoch=plan.steps_per_epoch,
                epochs=config.train.epochs,
            ),
            checkpoints=_Stamped(checkpoints, digests),
            observer=_Observer(logs, bar, timer),
            timer=timer,
            history=share_json(logs[0].rows() if logs else None),
            meta=meta,
            stop_requested=stop_together(flag, plan.log_every_steps),
            describe_step=lambda step: _describe_step(step, parts, experiment.train),
        )


def _noting_the_first(train_step: StepBySize, startup: StartUp) -> Callable[[Any, Any], tuple[Any, Any]]:
    """The step as the loop calls it; it waits for the first one to end, and for no other."""

    def step(state: Any, batch: tuple[Any, ...]) -> tuple[Any, Any]:
        done = train_step(state, *batch)
        if "first_step" not in startup.seconds:
            jax.block_until_ready(done)
            startup.ends("first_step")
        return done

    return step


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
    """Checkpoints that carry the digests of config and data; None on processes that leave saving to process 0."""

    checkpoints: Checkpoints | None
    digests: dict[str, str]

    def save(self, step: int, state: Any, extra: dict[str, Any]) -> None:
        if self.checkpoints is not None:
            self.checkpoints.save(step, state, {**extra, "digests": self.digests})

    def save_best(self, step: int, state: Any, extra: dict[str, Any]) -> None:
        if self.checkpoints is not None:
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

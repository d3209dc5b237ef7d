"""The training loop: one function to read from top to bottom, its invariants as comments, each with a test.

What the loop needs from outside (batches, steps, evaluation, checkpoints, log, progress) is handed in, so
that the loop itself can be tested with plain functions.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp

from wbc_jax.errors import DivergedError
from wbc_jax.train.state import TrainState

Sums = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class LoopPlan:
    """When things happen, in steps and epochs.

    Attributes:
        steps_per_epoch, total_steps: length of an epoch and of the run.
        log_every_steps: read losses back after this many steps.
        save_every_steps: checkpoints inside an epoch; None: at epoch ends only.
        eval_every_epochs: validate after this many epochs, and after the last.
        select: validation score that picks the best state; `loss` is better when smaller.
        patience_epochs: stop after this many epochs without a better score; None: never.
        tolerate_nonfinite: non-finite updates are skipped by the step, not an error.
    """

    steps_per_epoch: int
    total_steps: int
    log_every_steps: int
    save_every_steps: int | None = None
    eval_every_epochs: int = 1
    select: str = "accuracy"
    patience_epochs: int | None = None
    tolerate_nonfinite: bool = False

    def ends_epoch(self, step: int) -> bool:
        return step % self.steps_per_epoch == 0 or step == self.total_steps

    def is_validation(self, step: int) -> bool:
        """Whether the state after `step` steps is to be validated."""
        epoch = math.ceil(step / self.steps_per_epoch)
        return self.ends_epoch(step) and (epoch % self.eval_every_epochs == 0 or step == self.total_steps)


class Checkpointer(Protocol):
    """What the loop asks of `wbc_jax.runtime.checkpoints`."""

    def save(self, step: int, state: Any, extra: dict[str, Any]) -> None: ...
    def save_best(self, step: int, state: Any, extra: dict[str, Any]) -> None: ...


class Observer(Protocol):
    """Where rows go: metrics.jsonl, TensorBoard, the progress bar."""

    def row(self, row: dict[str, Any]) -> None: ...
    def step(self, step: int) -> None: ...
    def note(self, text: str) -> None: ...


class Timer(Protocol):
    """Goodput shares: `with timer.measure("input"):`."""

    def measure(self, share: str) -> Any: ...


@dataclass
class Windows:
    """Sums of the open log window and epoch; saved with a checkpoint, so that a resumed run logs the same."""

    log: Sums = field(default_factory=dict)
    epoch: Sums = field(default_factory=dict)

    def add(self, sums: Sums) -> None:
        for window in (self.log, self.epoch):
            for name, value in sums.items():
                window[name] = window.get(name, 0.0) + value


@dataclass
class Scores:
    """Validation history in one number each: enough to pick the best state and to stop early."""

    select: str
    by_step: dict[int, float] = field(default_factory=dict)

    def add(self, step: int, row: dict[str, Any]) -> bool:
        """Notes a validation; True when it is the best so far (the first of equals stays best)."""
        value = float(row[f"val.{self.select}"])
        score = -value if self.select == "loss" else value
        best = all(score > other for other in self.by_step.values())
        self.by_step[step] = score
        return best

    @property
    def best_step(self) -> int | None:
        return max(self.by_step, key=lambda s: (self.by_step[s], -s), default=None)

    def epochs_without_better(self) -> int:
        steps = sorted(self.by_step)
        return 0 if self.best_step is None else len(steps) - 1 - steps.index(self.best_step)


@dataclass(frozen=True, kw_only=True)
class LoopOutcome:
    """How the loop ended, and the state it ended with."""

    reason: Literal["finished", "early_stop", "interrupted"]
    state: TrainState
    step: int
    best_step: int | None


def run_loop(
    state: TrainState,
    plan: LoopPlan,
    *,
    train_step: Callable[[TrainState, Any], tuple[TrainState, Any]],
    batches: Callable[[int], Iterator[Any]],
    validate: Callable[[TrainState], dict[str, float]],
    learning_rate: Callable[[int], float],
    checkpoints: Checkpointer,
    observer: Observer,
    timer: Timer,
    history: list[dict[str, Any]],
    meta: dict[str, Any],
    stop_requested: Callable[[], bool],
    describe_step: Callable[[int], dict[str, Any]],
) -> LoopOutcome:
    """Trains from `state.step` to the plan's end.

    Args:
        state: fresh, or as restored; its `step` is the position in everything.
        train_step: compiled; donates the state.
        batches: `batches(step)` yields the batches of step, step+1, …
        validate: scores of a state on the validation set (`accuracy`, `loss`, …).
        history: rows already logged up to `state.step`; decides what was best so far.
        meta: metadata of the restored checkpoint (open windows), empty for a new run.
        stop_requested: whether a signal asks to stop.
        describe_step: sample ids and the like, for the report when a step diverges.

    Raises:
        DivergedError: a loss or gradient was not finite.
    """
    scores = Scores(plan.select)
    for row in history:
        if f"val.{plan.select}" in row:
            scores.add(row["step"], row)
    windows = Windows(**{name: dict(sums) for name, sums in meta.get("windows", {}).items()})
    pending: list[Any] = []

    # Position in data, randomness and schedules follow from the step, and the step lives in the state alone.
    step = int(jax.device_get(state.step))
    reason: Literal["finished", "early_stop", "interrupted"] = "finished"

    # A run that died between saving and validating an epoch's end validates it first: no row is ever missing.
    if step > 0 and plan.is_validation(step) and step not in scores.by_step:
        _validate(state, step, plan, scores, validate, checkpoints, observer, timer)
    source = batches(step)
    while step < plan.total_steps:
        if plan.ends_epoch(step) and _out_of_patience(plan, scores):
            reason = "early_stop"
            break
        with timer.measure("input"):
            batch = next(source)
        with timer.measure("step"):
            state, sums = train_step(state, batch)
        step += 1
        pending.append(sums)

        stopping = stop_requested()
        saving = stopping or plan.ends_epoch(step) or _due(step, plan.save_every_steps)
        logging = plan.ends_epoch(step) or _due(step, plan.log_every_steps)
        # Reading sums back is the only point where the host waits for the device. A state is saved only after
        # its own losses were read and found finite, and its parameters too: a checkpoint is always a good one.
        if saving or logging or len(pending) >= plan.log_every_steps:
            with timer.measure("step"):
                _read_back(pending, windows, step, plan, describe_step)
            observer.step(step)  # here, and only here, the device has caught up with the host
        if logging:
            observer.row(_log_row(windows.log, step, plan, learning_rate(step - 1)))
            windows.log = {}
        if plan.ends_epoch(step):
            observer.row(_epoch_row(windows.epoch, step, plan))
            windows.epoch = {}
        if saving:
            # Finite losses do not vouch for what their update made of the state.
            if not jax.device_get(_all_finite((state.params, state.batch_stats))):
                raise Diverged(step, {"nonfinite_state": 1.0}, describe_step(step - 1))
            with timer.measure("checkpoint"):
                checkpoints.save(step, state, {"windows": dataclasses.asdict(windows)})
        if plan.is_validation(step) and not stopping:
            # The state validated is the state saved.
            _validate(state, step, plan, scores, validate, checkpoints, observer, timer)
        if stopping:
            reason = "interrupted"
            break
    return LoopOutcome(reason=reason, state=state, step=step, best_step=scores.best_step)


@jax.jit
def _all_finite(tree: Any) -> jax.Array:
    floats = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in floats])) if floats else jnp.array(True)


def _due(step: int, every: int | None) -> bool:
    return every is not None and step % every == 0


def _out_of_patience(plan: LoopPlan, scores: Scores) -> bool:
    if plan.patience_epochs is None:
        return False
    return scores.epochs_without_better() * plan.eval_every_epochs >= plan.patience_epochs


def _read_back(
    pending: list[Any],
    windows: Windows,
    step: int,
    plan: LoopPlan,
    describe_step: Callable[[int], dict[str, Any]],
) -> None:
    """Moves the sums of the last steps to the host, checks them, adds them up in step order."""
    read = jax.device_get(pending)
    first = step - len(pending)
    pending.clear()
    for offset, device_sums in enumerate(read):
        sums = {name: float(value) for name, value in device_sums.items()}
        if sums["nonfinite"] > 0 and not plan.tolerate_nonfinite:
            raise Diverged(first + offset + 1, sums, describe_step(first + offset))
        windows.add(sums)


class Diverged(DivergedError):
    """A step whose loss or gradient is not finite; carries what a diagnosis needs."""

    def __init__(self, step: int, sums: Sums, sample: dict[str, Any]) -> None:
        self.report = {
            "step": step,
            "sums": {name: value if math.isfinite(value) else repr(value) for name, value in sums.items()},
            **sample,
        }
        super().__init__(
            f"loss, gradient or state is not finite at step {step}",
            expected="finite numbers",
            where="nonfinite.json in the run directory names the images of that step",
            remedy="lower optim.learning_rate, set optim.clip_norm, or train.skip_nonfinite_updates; "
            "the last good checkpoint is kept",
        )


def _log_row(sums: Sums, step: int, plan: LoopPlan, learning_rate: float) -> dict[str, Any]:
    row = {"step": step, "epoch": step / plan.steps_per_epoch, **_means(sums)}
    return {**row, "learning_rate": learning_rate}


def _epoch_row(sums: Sums, step: int, plan: LoopPlan) -> dict[str, Any]:
    means = {name.replace("train.", "epoch."): value for name, value in _means(sums).items()}
    return {"step": step, "epoch": step / plan.steps_per_epoch, **means}


def _means(sums: Sums) -> dict[str, float]:
    count, steps = max(sums["count"], 1.0), max(sums["steps"], 1.0)
    row = {
        "train.loss": sums["loss_sum"] / count,
        "train.accuracy": sums["correct_sum"] / count,
        "train.grad_norm": sums["grad_norm"] / steps,
    }
    if sums.get("attribute_count"):
        row["train.attribute_accuracy"] = sums["attribute_correct_sum"] / sums["attribute_count"]
    return row if not sums["skipped"] else {**row, "train.skipped_updates": sums["skipped"]}


def _validate(
    state: TrainState,
    step: int,
    plan: LoopPlan,
    scores: Scores,
    validate: Callable[[TrainState], dict[str, float]],
    checkpoints: Checkpointer,
    observer: Observer,
    timer: Timer,
) -> None:
    with timer.measure("evaluate"):
        values = validate(state)
    row = {"step": step, "epoch": step / plan.steps_per_epoch, **{f"val.{k}": v for k, v in values.items()}}
    # The best state is on disk before the row that calls it best: no row promises a state that is not there.
    if scores.add(step, row):
        with timer.measure("checkpoint"):
            checkpoints.save_best(step, state, {"score": scores.by_step[step], "select": plan.select})
        observer.note(f"best so far: {plan.select} {row[f'val.{plan.select}']:.4f} at step {step}")
    observer.row(row)

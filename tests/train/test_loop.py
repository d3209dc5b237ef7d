"""The loop's invariants, with plain functions in place of network, disk and screen."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from typing import Any

import jax.numpy as jnp
import pytest

from wbc_jax.errors import DivergedError
from wbc_jax.train.loop import Diverged, LoopPlan, Scores, run_loop
from wbc_jax.train.state import TrainState

PLAN = LoopPlan(steps_per_epoch=5, total_steps=15, log_every_steps=2, save_every_steps=3)


class World:
    """Everything around the loop, recording what the loop does to it."""

    def __init__(self, *, val: dict[int, float] | None = None, stop_at: int | None = None) -> None:
        self.events: list[tuple[str, int]] = []
        self.rows: list[dict[str, Any]] = []
        self.saved: dict[int, tuple[TrainState, dict[str, Any]]] = {}
        self.best: int | None = None
        self.val = val or {}
        self.stop_at = stop_at
        self.step_now = 0
        self.reported: list[int] = []
        self.loss = {step: 1.0 / (step + 1) for step in range(100)}

    # the step: params count the batches that they have seen, so a lost or repeated batch shows
    def train_step(self, state: TrainState, batch: int) -> tuple[TrainState, dict[str, Any]]:
        step = int(state.step)
        assert batch == step, "the batch must be that of the state's own step"
        loss = self.loss[step]
        sums = {"loss_sum": loss * 4, "correct_sum": 2.0, "count": 4.0, "grad_norm": 1.0, "steps": 1.0}
        sums |= {"nonfinite": float(not math.isfinite(loss)), "skipped": 0.0}
        params = {"seen": state.params["seen"] * 31 + batch}
        self.events.append(("step", step + 1))
        self.step_now = step + 1
        return state.replace(step=state.step + 1, params=params), sums

    def save(self, step: int, state: TrainState, meta: dict[str, Any]) -> None:
        assert int(state.step) == step
        self.events.append(("save", step))
        self.saved[step] = (state, meta)

    def save_best(self, step: int, state: TrainState, meta: dict[str, Any]) -> None:
        self.events.append(("best", step))
        self.best = step

    def row(self, row: dict[str, Any]) -> None:
        self.events.append(("row", row["step"]))
        self.rows.append(row)

    def step(self, step: int) -> None:
        self.reported.append(step)

    def note(self, text: str) -> None:
        pass

    def measure(self, share: str) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def validate(self, state: TrainState) -> dict[str, float]:
        step = int(state.step)
        self.events.append(("validate", step))
        return {"accuracy": self.val.get(step, 0.5), "loss": 1.0}


def _fresh() -> TrainState:
    return TrainState(
        step=jnp.int32(0),
        params={"seen": jnp.uint32(1)},
        batch_stats={},
        opt_state=(),
        ema_params=None,
        ema_batch_stats=None,
    )


def _run(
    world: World, plan: LoopPlan = PLAN, state: TrainState | None = None, meta: Any = None, rows: Any = ()
):
    def batches(step: int):
        while True:
            yield step
            step += 1

    return run_loop(
        _fresh() if state is None else state,
        plan,
        train_step=world.train_step,
        batches=batches,
        validate=world.validate,
        learning_rate=lambda step: 0.1,
        checkpoints=world,
        observer=world,
        timer=world,
        history=list(rows),
        meta={} if meta is None else meta,
        stop_requested=lambda: world.stop_at is not None and world.step_now >= world.stop_at,
        describe_step=lambda step: {"ids": [step]},
    )


def test_order_of_events_save_then_validate_then_best() -> None:
    world = World(val={5: 0.6, 10: 0.8, 15: 0.7})
    outcome = _run(world)
    assert (outcome.reason, outcome.step, outcome.best_step, world.best) == ("finished", 15, 10, 10)
    at_five = [kind for kind, step in world.events if step == 5]
    assert at_five == ["step", "row", "row", "save", "validate", "best", "row"]
    assert sorted(world.saved) == [3, 5, 6, 9, 10, 12, 15]


@pytest.mark.parametrize("killed_after", range(1, 15))
def test_resume_from_any_step_gives_the_same_state_and_the_same_rows(killed_after: int) -> None:
    plan = dataclasses.replace(PLAN, save_every_steps=1)
    whole = World(val={5: 0.6, 10: 0.8, 15: 0.7})
    expected = _run(whole, plan)
    state, meta = whole.saved[killed_after]
    kept = [row for row in whole.rows if row["step"] <= killed_after]
    if killed_after % 5 == 0:
        kept = [row for row in kept if "val.accuracy" not in row or row["step"] < killed_after]
    again = World(val=whole.val)
    outcome = _run(again, plan, state, meta, kept)
    assert int(outcome.state.params["seen"]) == int(expected.state.params["seen"])
    assert outcome.best_step == expected.best_step
    assert kept + again.rows == whole.rows


def test_log_rows_are_means_over_their_window() -> None:
    world = World()
    _run(world)
    losses = [row["train.loss"] for row in world.rows if "train.loss" in row]
    assert losses[0] == pytest.approx((1 + 1 / 2) / 2)
    assert losses[2] == pytest.approx(1 / 5)  # the window is cut at the end of the epoch
    epochs = [row["epoch.loss"] for row in world.rows if "epoch.loss" in row]
    assert epochs[0] == pytest.approx(sum(1 / k for k in range(1, 6)) / 5)


def test_progress_is_reported_where_the_device_has_caught_up() -> None:
    world = World()
    _run(world)
    assert world.reported == [2, 3, 4, 5, 6, 8, 9, 10, 12, 14, 15]


def test_signal_saves_the_current_step_and_stops() -> None:
    world = World(stop_at=7)
    outcome = _run(world)
    assert (outcome.reason, outcome.step) == ("interrupted", 7)
    assert 7 in world.saved
    resumed = World()
    final = _run(resumed, PLAN, *world.saved[7], [r for r in world.rows if r["step"] <= 7])
    assert int(final.state.params["seen"]) == int(_run(World()).state.params["seen"])


def test_signal_in_the_last_step_still_finishes_the_validation() -> None:
    world = World(stop_at=15)
    first = _run(world)
    rest = World()
    outcome = _run(rest, PLAN, *world.saved[15], world.rows)
    assert (first.reason, outcome.reason) == ("interrupted", "finished")
    assert [kind for kind, _ in rest.events] == ["validate", "row"]


@pytest.mark.parametrize("bad_step", [0, 4, 7, 11])
def test_nonfinite_loss_stops_before_it_is_saved(bad_step: int) -> None:
    world = World()
    world.loss[bad_step] = math.nan
    with pytest.raises(Diverged) as caught:
        _run(world)
    assert isinstance(caught.value, DivergedError)
    assert caught.value.report["step"] == bad_step + 1
    assert caught.value.report["ids"] == [bad_step]
    assert all(step <= bad_step for step in world.saved)


def test_tolerated_nonfinite_updates_are_counted_not_fatal() -> None:
    world = World()
    original = world.train_step

    def skipping(state: TrainState, batch: int):
        state, sums = original(state, batch)
        return state, {**dict.fromkeys(sums, 0.0), "nonfinite": 1.0, "skipped": 1.0}

    world.train_step = skipping  # type: ignore[method-assign]
    assert _run(world, dataclasses.replace(PLAN, tolerate_nonfinite=True)).reason == "finished"
    assert world.rows[0]["train.skipped_updates"] == 2.0


def test_early_stop_after_patience_epochs_without_a_better_score() -> None:
    plan = dataclasses.replace(PLAN, total_steps=50, patience_epochs=2)
    world = World(val={5: 0.5, 10: 0.9, 15: 0.9, 20: 0.8, 25: 1.0})
    outcome = _run(world, plan)
    assert (outcome.reason, outcome.step, outcome.best_step) == ("early_stop", 20, 10)


def test_loss_is_better_when_smaller() -> None:
    scores = Scores("loss")
    assert [scores.add(step, {"val.loss": value}) for step, value in ((1, 2.0), (2, 1.0), (3, 1.5))] == [
        True,
        True,
        False,
    ]
    assert scores.best_step == 2

"""`benchmark time-to-accuracy`: how long a recipe takes to a given balanced accuracy, from the start of the process.

The clock runs through everything a user waits for: imports, data, compilation, steps, validation. It stands still only
while the test images are scored, which decide nothing: each validation is followed by one look at them, for the record.
Programs are kept and compiled ahead as `wbc-jax train` does it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from wbc_jax.bench.schema import Row, append_rows, check_out, columns_of, describe_machine
from wbc_jax.config import Config
from wbc_jax.errors import EXIT_OK, UsageError


@dataclass(frozen=True, kw_only=True)
class TimeToAccuracyOptions:
    """Seconds to a balanced accuracy on real images."""

    config: str = "speed"
    """Recipe by name; `wbc-jax config --list` shows all."""
    target_percent: float = 98.0
    """Balanced accuracy to be reached, percent."""
    seed: int = 0
    """Seed of initial weights, order, augmentation and dropout."""
    out: Path | None = None
    """CSV file that rows are added to, one a validation; None: they are only printed."""


@dataclass(frozen=True, kw_only=True)
class Lap:
    """A validation, and when it was done.

    Attributes:
        step: steps so far.
        from_start_s: seconds since the process started, scoring of test images taken out.
        from_first_step_s: the same since the first step's program was compiled and had run once.
        val: balanced accuracy on the validation images, which is what a user would stop by, 0 to 1.
        test: the same on the test images.
    """

    step: int
    from_start_s: float
    from_first_step_s: float
    val: float
    test: float


@dataclass(frozen=True, kw_only=True)
class LapRow(Row):
    """A lap as a row of the benchmark's CSV, which has more columns than the others' have."""

    epoch: float
    from_start_s: float
    from_first_step_s: float
    val_balanced_accuracy: float
    test_balanced_accuracy: float
    test_images: int
    reached: str
    """`val` in the first row whose validation images reach the target, `test` in the first whose test images do."""


def run_time_to_accuracy(options: TimeToAccuracyOptions) -> int:
    """Train a recipe and tell when its validation and test images reach a balanced accuracy."""
    if not 0 < options.target_percent <= 100:
        raise UsageError(f"--target-percent {options.target_percent}", expected="above 0, up to 100")
    check_out(options.out, columns_of(LapRow))
    from wbc_jax.config_check import require_valid
    from wbc_jax.configs import get_recipe

    recipe = get_recipe(options.config)
    config = replace(recipe, train=replace(recipe.train, seed=options.seed))
    require_valid(config)
    machine, reached = describe_machine(), set[str]()

    def report(lap: Lap, images: Mapping[str, int]) -> None:
        """Said and written at once: what was measured stays, however the run ends."""
        now = {
            part
            for part, score in (("val", lap.val), ("test", lap.test))
            if score >= options.target_percent / 100 and part not in reached
        }
        reached.update(now)
        row = _row(lap, images, config, " and ".join(sorted(now, reverse=True)))
        if options.out is not None:
            append_rows(options.out, machine, [row])
        print(
            f"epoch {row.epoch:4.1f}  {row.from_start_s:6.1f} s from the start, {row.from_first_step_s:6.1f} s from "
            f"the first step: validation {row.val_balanced_accuracy:.2%}, test {row.test_balanced_accuracy:.2%}"
            + (f"  <- {row.reached} reaches {options.target_percent:g} %" if row.reached else ""),
            flush=True,
        )

    measure_laps(config, seconds_since_process_start, report)
    return EXIT_OK


def seconds_since_process_start() -> float:
    """Wall-clock seconds since this process was started, imports included."""
    import psutil

    return time.time() - psutil.Process().create_time()


@dataclass
class _Clock:
    """Seconds of `now`, less those spent under `stopped`."""

    now: Callable[[], float]
    taken_out_s: float = 0.0
    first_step_s: float | None = None

    def read(self) -> float:
        return self.now() - self.taken_out_s

    def stopped(self, work: Callable[[], Any]) -> Any:
        start = self.now()
        done = work()
        self.taken_out_s += self.now() - start
        return done


@dataclass
class _Quiet:
    """Stands in for what a run directory keeps: nothing is saved, rows are dropped."""

    rows: list[dict[str, Any]] = field(default_factory=list)

    def save(self, step: int, state: Any, extra: dict[str, Any]) -> None: ...
    def save_best(self, step: int, state: Any, extra: dict[str, Any]) -> None: ...
    def step(self, step: int) -> None: ...
    def note(self, text: str) -> None: ...
    def row(self, row: dict[str, Any]) -> None: ...


def measure_laps(
    config: Config, now: Callable[[], float], report: Callable[[Lap, Mapping[str, int]], None]
) -> None:
    """Trains `config` to its end with the parts and the loop of `wbc-jax train`.

    Args:
        config: valid.
        now: seconds since the start.
        report: called after each validation, with the number of images in each part of the split.
    """
    import jax

    from wbc_jax.commands.ahead import compile_ahead
    from wbc_jax.commands.parts import build_parts
    from wbc_jax.commands.program_cache import enable_cache
    from wbc_jax.commands.scoring import validation
    from wbc_jax.commands.training import loop_plan
    from wbc_jax.data.experiment import PARTS, load_experiment
    from wbc_jax.runtime.goodput import Goodput
    from wbc_jax.train.loop import run_loop
    from wbc_jax.train.parallel import split_by_row

    clock = _Clock(now)
    enable_cache(config.runtime.compile_cache, config.data.cache_dir)
    experiment = load_experiment(config.data)
    images = {name: len(experiment.part(name).rows) for name in PARTS}
    parts = build_parts(config, experiment)
    batches, _ = compile_ahead(parts, parts.state, 0, experiment.val, config.eval.batch_size)
    plan, sharding = loop_plan(config, parts.order), split_by_row(parts.mesh)
    score_val = validation(config, experiment, parts.eval_step, sharding)
    score_test = validation(config, replace(experiment, val=experiment.test), parts.eval_step, sharding)

    def train_step(state: Any, batch: Any) -> Any:
        done = parts.train_step(state, *batch)
        if clock.first_step_s is None:
            jax.block_until_ready(done)
            clock.first_step_s = clock.read()
        return done

    def validate(state: Any) -> dict[str, float]:
        scores, at_s = score_val(state), clock.read()
        test = clock.stopped(lambda: score_test(state))
        first_step_s = clock.first_step_s or 0.0
        lap = Lap(
            step=int(jax.device_get(state.step)),
            from_start_s=at_s,
            from_first_step_s=at_s - first_step_s,
            val=scores["balanced_accuracy"],
            test=test["balanced_accuracy"],
        )
        report(lap, images)
        return scores

    quiet = _Quiet()
    run_loop(
        parts.state,
        plan,
        train_step=train_step,
        batches=batches,
        validate=validate,
        learning_rate=lambda step: 0.0,
        checkpoints=quiet,
        observer=quiet,
        timer=Goodput(),
        history=[],
        meta={},
        stop_requested=lambda: False,
        describe_step=lambda step: {},
    )


def _row(lap: Lap, images: Mapping[str, int], config: Config, reached: str) -> LapRow:
    from wbc_jax.data.order import steps_per_epoch
    from wbc_jax.runtime.devices import activation_dtype

    batch_size = config.train.batch_size
    return LapRow(
        benchmark="time-to-accuracy",
        model=config.model.name,
        mode="train",
        data_mode="device-resident",
        precision=activation_dtype(config.train.precision).__name__,
        batch_size=batch_size,
        image_size_px=config.data.image_size_px,
        images_per_s=lap.step * batch_size / max(lap.from_first_step_s, 1e-9),
        step_ms=1e3 * lap.from_first_step_s / lap.step,
        iqr_ms=None,
        warmup_steps=0,
        timed_steps=lap.step,
        repeats=1,
        images=lap.step * batch_size,
        wall_s=lap.from_start_s,
        epoch=lap.step / steps_per_epoch(images["train"], batch_size),
        from_start_s=lap.from_start_s,
        from_first_step_s=lap.from_first_step_s,
        val_balanced_accuracy=lap.val,
        test_balanced_accuracy=lap.test,
        test_images=images["test"],
        reached=reached,
    )

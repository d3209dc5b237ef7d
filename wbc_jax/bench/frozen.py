"""`benchmark frozen`: a training step of DAFFNet whose attribute predictor is trained, frozen, folded or cached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from wbc_jax.bench.mismatch import MismatchError
from wbc_jax.bench.options import TimingOptions, on_cpu
from wbc_jax.bench.schema import Row, append_rows, describe_machine
from wbc_jax.bench.table import print_rows
from wbc_jax.bench.timing import interquartile_range, paired_ratios, time_interleaved
from wbc_jax.errors import EXIT_OK, UsageError

FORMS = ("joint", "frozen", "folded", "cached")
_SAME_LOSS = 1e-2
"""Largest relative difference between the last losses of the forms that compute the same."""


@dataclass(frozen=True, kw_only=True)
class FrozenOptions(TimingOptions):
    """A training step on a fixed batch in four forms, in turns."""

    model: str = "daffnet"
    """A DAFFNet by name."""
    batch_size: int | None = None
    """Images per step; None: 8 on a CPU, 256 on accelerators."""
    image_size_px: int = 224
    """Side of the images, px."""


def run_frozen(options: FrozenOptions) -> int:
    """Measure training steps with the attribute predictor joint, frozen, folded and cached, against joint."""
    from wbc_jax.bench.frozen_subject import Forms
    from wbc_jax.models.daffnet import DAFFNETS
    from wbc_jax.runtime.devices import activation_dtype

    options.check()
    if options.model not in DAFFNETS:
        raise UsageError(
            f"{options.model} has no attribute branch", expected=", ".join(DAFFNETS), where="--model"
        )
    machine = describe_machine()
    batch_size = options.batch_size or (8 if on_cpu() else 256)
    dtype = activation_dtype(options.precision)
    forms = Forms(options.model, batch_size, options.image_size_px, dtype)
    subjects = {name: forms.subject(name) for name in FORMS}
    timings = time_interleaved(
        {name: subject.run for name, subject in subjects.items()},
        warmup_steps=options.warmup_steps,
        timed_steps=options.steps(),
        repeats=options.repeats,
    )
    _require_same_loss({name: subjects[name].last_loss for name in FORMS[1:]})
    joint = timings["joint"]
    rows = []
    for name, subject in subjects.items():
        timing = timings[name]
        columns: dict[str, Any] = {}
        if name != "joint":
            columns = {
                "peer": "joint",
                "peer_images_per_s": batch_size / joint.median,
                "peer_iqr_ms": 1e3 * joint.iqr,
                "ratio": joint.median / timing.median,
                "ratio_iqr": interquartile_range(paired_ratios(timing, joint)),
            }
        rows.append(
            Row(
                benchmark="frozen",
                model=options.model,
                mode="train",
                variant=name,
                data_mode="synthetic-fixed",
                precision=forms.precision,
                batch_size=batch_size,
                image_size_px=options.image_size_px,
                images_per_s=batch_size / timing.median,
                step_ms=1e3 * timing.median,
                iqr_ms=1e3 * timing.iqr,
                warmup_steps=options.warmup_steps,
                timed_steps=options.steps(),
                repeats=options.repeats,
                compile_s=None if subject.costs.from_cache else subject.costs.compile_s,
                loss_first=subject.first_loss,
                loss_after=subject.last_loss,
                **columns,
            )
        )
    if options.out is not None:
        append_rows(options.out, machine, rows)
    print_rows(machine, rows)
    return EXIT_OK


def _require_same_loss(losses: dict[str, float]) -> None:
    """MismatchError where the forms that compute the same did not: their times would not be comparable."""
    lowest, highest = min(losses.values()), max(losses.values())
    if not highest - lowest <= _SAME_LOSS * highest:
        raise MismatchError(
            f"the last losses differ: {', '.join(f'{name} {loss:.5g}' for name, loss in losses.items())}",
            expected=f"a difference of at most {_SAME_LOSS:.0%}",
            benchmark="frozen",
        )

"""`benchmark variants`: a network's step in other forms, each in turns with the default one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from wbc_jax.bench.energy import energy_meter
from wbc_jax.bench.form_names import parse_forms
from wbc_jax.bench.mismatch import MismatchError
from wbc_jax.bench.options import ModelOptions
from wbc_jax.bench.schema import Machine, Row, append_rows, describe_machine
from wbc_jax.bench.step import case_columns, compile_all, make_cases, subject_columns, traffic_columns
from wbc_jax.bench.subject import Case, InferSubject, TrainSubject
from wbc_jax.bench.table import print_rows
from wbc_jax.bench.timing import Timing, interquartile_range, paired_ratios, time_interleaved
from wbc_jax.errors import EXIT_OK, UsageError
from wbc_jax.models.lowerings import Form

BASE = "default"
_TOLERANCE = {4: 0.01, 2: 0.1}
"""Largest difference between the losses of two forms after as many steps, as a share, by bytes of an activation."""
_PROBABILITY_TOLERANCE = {4: 1e-3, 2: 5e-2}
"""Largest difference between the probabilities of two forms, likewise."""


@dataclass(frozen=True, kw_only=True)
class VariantOptions(ModelOptions):
    """The default form of a step, and others."""

    models: tuple[str, ...] = ("resnet50",)
    """Networks by name; `wbc_jax.models.list_models()` lists all."""
    steps_per_call: tuple[int, ...] | None = None
    """Training steps compiled into one program, besides 1: saves calls where a step is short. None: 4."""
    forms: tuple[str, ...] = ()
    """Forms of operations, each `kind=form`, several at once joined by a comma: `pointwise=dot`,
    `stem=padded,grouped=merged64`; `wbc_jax.models.lowerings.FORMS` lists kinds and forms."""
    batch_sizes: tuple[int, ...] = ()
    """Further batch sizes, compared by images/s."""


@dataclass(frozen=True)
class Variant:
    """One form of a step.

    Attributes:
        label: what the column `variant` says.
        case: what is run.
        steps_per_call: training steps in one compiled program.
        forms: kind of operation -> form, where it is not the default one.
    """

    label: str
    case: Case
    steps_per_call: int = 1
    forms: Mapping[str, Form] = field(default_factory=dict)

    def subject(self) -> TrainSubject | InferSubject:
        """Compiled."""
        if self.case.mode == "infer":
            return InferSubject(self.case, chosen=self.forms)
        return TrainSubject(self.case, steps_per_call=self.steps_per_call, chosen=self.forms)


def run_variants(options: VariantOptions) -> int:
    """Measure steps in several forms, in turns with the default one."""
    options.check()
    low = [f"{value}" for value in (*(options.steps_per_call or ()), *options.batch_sizes) if value < 1]
    if low:
        raise UsageError(
            f"--steps-per-call or --batch-sizes {low[0]}",
            expected="numbers of at least 1",
            where="wbc-jax benchmark variants",
        )
    if options.mode == "infer" and options.steps_per_call is not None:
        raise UsageError(
            "--steps-per-call with --mode infer",
            expected="training: predictions do not follow from each other",
        )
    for text in options.forms:
        parse_forms(text, where="--forms")
    machine = describe_machine()
    rows: list[Row] = []
    for case in make_cases(options):
        measured = _measure(case, options, machine)
        rows += measured
        if options.out is not None:
            append_rows(options.out, machine, measured)
    print_rows(machine, rows)
    return EXIT_OK


def variants_of(case: Case, options: VariantOptions) -> list[Variant]:
    """The default form first."""
    steps_per_call = options.steps_per_call or (() if case.mode == "infer" else (4,))
    return [
        Variant(BASE, case),
        *(
            Variant(text, case, forms=parse_forms(text, where="--forms"))
            for text in dict.fromkeys(options.forms)
        ),
        *(Variant(f"steps_per_call={k}", case, k) for k in steps_per_call if k > 1),
        *(
            Variant(f"batch_size={size}", dataclasses.replace(case, batch_size=size))
            for size in options.batch_sizes
            if size != case.batch_size
        ),
    ]


def _measure(case: Case, options: VariantOptions, machine: Machine) -> list[Row]:
    variants = variants_of(case, options)
    _ = case.initial  # once, before threads ask for it
    made = compile_all([variant.subject for variant in variants])
    subjects: dict[str, Any] = dict(zip((variant.label for variant in variants), made, strict=True))
    for variant in variants[1:]:
        if subjects[variant.label].costs.program == subjects[BASE].costs.program:
            print(f"{case.model_name}: {variant.label} changes nothing on {machine.backend}, not measured")
            del subjects[variant.label]
    variants = [variant for variant in variants if variant.label in subjects]
    (check_same_training if case.mode == "train" else check_same_prediction)(variants, subjects)
    timings = time_interleaved(
        {label: subject.run for label, subject in subjects.items()},
        warmup_steps=options.warmup_steps,
        timed_steps=options.steps(),
        repeats=options.repeats,
        meter=energy_meter(machine.backend),
    )
    per_image = {v.label: _per_image(timings[v.label], v) for v in variants}
    return [_row(variant, subjects[variant.label], per_image, options, machine) for variant in variants]


def check_same_training(variants: list[Variant], subjects: dict[str, Any]) -> None:
    """Runs one program of each form; those on the same batch must then have the loss that as many steps give.

    Raises:
        MismatchError: a form computes something else.
    """
    base, done = subjects[BASE], 0
    for variant in sorted(variants[1:], key=lambda v: v.steps_per_call):
        subject = subjects[variant.label]
        subject.run(1)
        if variant.case.batch_size != variants[0].case.batch_size:
            continue
        base.run(variant.steps_per_call - done)
        done = variant.steps_per_call
        difference = abs(subject.last_loss - base.last_loss)
        tolerance = _TOLERANCE[np.dtype(variant.case.dtype).itemsize] * max(base.last_loss, 0.1)
        if not difference <= tolerance:
            raise MismatchError(
                f"{variant.case.model_name}, {variant.label}: loss {subject.last_loss:.5g} after {done} steps, "
                f"{base.last_loss:.5g} in the default form",
                expected=f"a difference of at most {tolerance:.3g}",
                benchmark="variants",
            )


def check_same_prediction(variants: list[Variant], subjects: dict[str, Any]) -> None:
    """The forms on the same batch must predict the same probabilities.

    Raises:
        MismatchError: a form computes something else.
    """
    for variant in variants[1:]:
        if variant.case.batch_size != variants[0].case.batch_size:
            continue
        probabilities = (subjects[label].probabilities() for label in (variant.label, BASE))
        difference = float(np.max(np.abs(np.subtract(*probabilities))))
        tolerance = _PROBABILITY_TOLERANCE[np.dtype(variant.case.dtype).itemsize]
        if not difference <= tolerance:
            raise MismatchError(
                f"{variant.case.model_name}, {variant.label}: probabilities differ by {difference:.3g} from those of "
                "the default form",
                expected=f"at most {tolerance:g}",
                benchmark="variants",
            )


def _per_image(timing: Timing, variant: Variant) -> Timing:
    """Seconds and joules per image, so that forms with other batches or steps a call compare."""
    images = variant.case.batch_size * variant.steps_per_call
    joules = None if timing.step_joules is None else tuple(j / images for j in timing.step_joules)
    return Timing(tuple(s / images for s in timing.step_seconds), joules)


def _row(
    variant: Variant,
    subject: TrainSubject | InferSubject,
    per_image: dict[str, Timing],
    options: Any,
    machine: Machine,
) -> Row:
    own, base, batch = per_image[variant.label], per_image[BASE], variant.case.batch_size
    beside = {
        "peer": BASE,
        "peer_images_per_s": 1.0 / base.median,
        "peer_iqr_ms": 1e3 * base.iqr * batch,
        "ratio": base.median / own.median,
        "ratio_iqr": interquartile_range(paired_ratios(own, base)),
    }
    step = Timing(tuple(seconds * batch for seconds in own.step_seconds))
    return Row(
        benchmark="variants",
        data_mode="synthetic-fixed",
        variant=variant.label,
        images_per_s=1.0 / own.median,
        step_ms=1e3 * step.median,
        iqr_ms=1e3 * step.iqr,
        warmup_steps=options.warmup_steps,
        timed_steps=options.steps() * variant.steps_per_call,
        repeats=options.repeats,
        joules_per_image=own.joules,
        **case_columns(variant.case),
        **subject_columns(subject, variant.case, variant.steps_per_call),
        **traffic_columns(variant.case, step, machine),
        **({} if variant.label == BASE else beside),
    )

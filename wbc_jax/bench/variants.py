"""`benchmark variants`: a network's training step in other forms, each in turns with the default one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast, get_args

import numpy as np

from wbc_jax.bench.energy import energy_meter
from wbc_jax.bench.options import ModelOptions
from wbc_jax.bench.schema import Machine, Row, append_rows, describe_machine
from wbc_jax.bench.step import case_columns, make_cases, subject_columns, traffic_columns
from wbc_jax.bench.subject import Case, TrainSubject
from wbc_jax.bench.table import print_rows
from wbc_jax.bench.timing import Timing, interquartile_range, paired_ratios, time_interleaved
from wbc_jax.errors import EXIT_OK, UsageError
from wbc_jax.models.lowerings import KINDS, Form, forms

BASE = "default"
_TOLERANCE = {4: 0.01, 2: 0.1}
"""Largest difference between the losses of two forms after as many steps, as a share, by bytes of an activation."""


@dataclass(frozen=True, kw_only=True)
class VariantOptions(ModelOptions):
    """The default form of a step, and others."""

    models: tuple[str, ...] = ("resnet50",)
    """Networks by name; `wbc_jax.models.list_models()` lists all."""
    steps_per_call: tuple[int, ...] = (4,)
    """Steps compiled into one program, besides 1: saves calls where a step is short."""
    forms: tuple[str, ...] = ()
    """Forms of operations, each `kind=form`, several at once joined by a comma: `pointwise=dot`,
    `stem=padded,grouped=merged64`; `wbc_jax.models.lowerings` lists kinds and forms."""
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

    def subject(self) -> TrainSubject:
        """Compiled."""
        with forms(**self.forms):
            return TrainSubject(self.case, steps_per_call=self.steps_per_call)


def run_variants(options: VariantOptions) -> int:
    """Measure training steps in several forms, in turns with the default one."""
    options.check()
    low = [f"{value}" for value in (*options.steps_per_call, *options.batch_sizes) if value < 1]
    if low or options.mode != "train":
        raise UsageError(
            f"--steps-per-call or --batch-sizes {low[0]}" if low else "--mode infer",
            expected="numbers of at least 1" if low else "train: it is training steps that have forms",
            where="wbc-jax benchmark variants",
        )
    for text in options.forms:
        parse_forms(text)
    machine = describe_machine()
    rows: list[Row] = []
    for case in make_cases(options):
        measured = _measure(case, options, machine)
        rows += measured
        if options.out is not None:
            append_rows(options.out, machine, measured)
    print_rows(machine, rows)
    return EXIT_OK


def parse_forms(text: str) -> dict[str, Form]:
    """`stem=padded,grouped=merged64` as kinds and forms.

    Raises:
        UsageError: a kind or form does not exist.
    """
    found: dict[str, Form] = {}
    for part in text.split(","):
        kind, _, form = part.partition("=")
        if kind not in KINDS or form not in get_args(Form):
            raise UsageError(
                f"--forms {part}",
                expected=f"kind=form, of the kinds {', '.join(KINDS)} and the forms {', '.join(get_args(Form))}",
                where="wbc-jax benchmark variants",
            )
        found[kind] = cast(Form, form)
    return found


def variants_of(case: Case, options: VariantOptions) -> list[Variant]:
    """The default form first."""
    return [
        Variant(BASE, case),
        *(Variant(text, case, forms=parse_forms(text)) for text in options.forms),
        *(Variant(f"steps_per_call={k}", case, k) for k in options.steps_per_call if k > 1),
        *(
            Variant(f"batch_size={size}", dataclasses.replace(case, batch_size=size))
            for size in options.batch_sizes
            if size != case.batch_size
        ),
    ]


def _measure(case: Case, options: VariantOptions, machine: Machine) -> list[Row]:
    variants = variants_of(case, options)
    subjects = {variant.label: variant.subject() for variant in variants}
    check_same_training(variants, subjects)
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
        RuntimeError: a form computes something else.
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
        if not difference <= _TOLERANCE[np.dtype(variant.case.dtype).itemsize] * max(base.last_loss, 0.1):
            raise RuntimeError(
                f"{variant.case.model_name}, {variant.label}: loss {subject.last_loss:.5g} after {done} steps, "
                f"{base.last_loss:.5g} in the default form"
            )


def _per_image(timing: Timing, variant: Variant) -> Timing:
    """Seconds and joules per image, so that forms with other batches or steps a call compare."""
    images = variant.case.batch_size * variant.steps_per_call
    joules = None if timing.step_joules is None else tuple(j / images for j in timing.step_joules)
    return Timing(tuple(s / images for s in timing.step_seconds), joules)


def _row(
    variant: Variant, subject: TrainSubject, per_image: dict[str, Timing], options: Any, machine: Machine
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

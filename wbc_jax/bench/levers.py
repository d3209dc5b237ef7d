"""`benchmark levers`: what each form in the table of winners gains over XLA's native one, per operation and network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

from wbc_jax.bench.options import TimingOptions
from wbc_jax.bench.result_file import append_values
from wbc_jax.bench.schema import Machine, describe_machine
from wbc_jax.bench.timing import Timing, interquartile_range, paired_ratios, time_interleaved
from wbc_jax.errors import EXIT_OK, UsageError
from wbc_jax.runtime.allocator import allocation

if TYPE_CHECKING:  # jax is slow to import, and the command line lists benchmarks without it
    from wbc_jax.models.lowerings import Form


@dataclass(frozen=True, kw_only=True)
class LeverOptions(TimingOptions):
    """Each lever on and off, in turns."""

    levers: tuple[str, ...] = ()
    """Kinds of operations, in the form that wins on this backend, or `kind=form`; none: all that it has a winner for.
    `wbc_jax.models.lowerings.FORMS` lists kinds and forms."""
    models: tuple[str, ...] = ()
    """Networks whose step is measured with each lever off beside the step with all on; none: operations only."""
    mode: Literal["train", "infer"] = "train"
    """Step of the networks: training or inference."""
    batch_size: int = 8
    """Images per step."""
    image_size_px: int = 224
    """Side of the networks' images, px; operations keep the shapes they have at 224 px."""

    def columns(self) -> tuple[str, ...]:
        """Those of `LeverRow`."""
        return tuple(field.name for field in fields(LeverRow))


@dataclass(frozen=True, kw_only=True)
class LeverRow:
    """One operation or network with and without one lever."""

    date: str
    commit: str | None
    device: str
    backend: str
    threads: int
    load_average: float | None
    versions: str
    subject: str
    """Operation, forward and backward, with its map; or a network's step, all other levers on."""
    batch_size: int
    lever: str
    """kind=form."""
    without_ms: float
    """Median, the kind in its native form."""
    with_ms: float
    """Median, in the form."""
    ratio: float
    """without_ms over with_ms."""
    repeats: int
    timed_steps: int
    """Per repeat."""
    precision: str
    """Type of maps and kernels, or of a network's activations."""
    without_iqr_ms: float
    """Distance between the quartiles of the repeats."""
    with_iqr_ms: float
    ratio_iqr: float
    """Distance between the quartiles of the ratios of paired repeats."""
    device_detail: str
    xla_flags: str
    glibc_tunables: str | None = field(default_factory=allocation)
    """How memory was allocated, where that was chosen."""


def run_levers(options: LeverOptions) -> int:
    """Measure each lever on and off, in turns, on operations and on whole steps."""
    options.check()
    levers = chosen_levers(options)
    machine = describe_machine()
    for kind, form in levers:
        for subject, contenders in _subjects(kind, form, options):
            if contenders["without"].costs.program == contenders["with"].costs.program:
                print(
                    f"{subject:34} {kind}={form} changes nothing on {machine.backend}: not measured",
                    flush=True,
                )
                continue
            timings = time_interleaved(
                {name: contender.run for name, contender in contenders.items()},
                warmup_steps=options.warmup_steps,
                timed_steps=options.steps(),
                repeats=options.repeats,
            )
            row = _row(subject, f"{kind}={form}", timings["without"], timings["with"], options, machine)
            print(
                f"{subject:34} {row.lever:22} {row.without_ms:9.1f} ms -> {row.with_ms:9.1f} ms  x{row.ratio:.2f}",
                flush=True,
            )
            if options.out is not None:
                append_values(options.out, options.columns(), [asdict(row)])
    return EXIT_OK


def chosen_levers(options: LeverOptions) -> list[tuple[str, Form]]:
    """(kind, form) of all that is to be measured.

    Raises:
        UsageError: a lever does not exist, or nothing of it can be measured.
    """
    import jax

    from wbc_jax.bench.form_names import parse_forms
    from wbc_jax.bench.lever_operations import OPERATIONS
    from wbc_jax.models.lowerings import WINNERS

    backend = jax.default_backend()
    winners: dict[str, Form] = {kind: form for (where, kind), form in WINNERS.items() if where == backend}
    if not options.levers and not winners:
        raise UsageError(
            f"on {backend} no form is known to win",
            expected="levers by name",
            where="--levers",
            remedy="name them: --levers pointwise=dot; whole steps are measured by `wbc-jax benchmark variants`",
        )
    if unknown := [name for name in options.levers if "=" not in name and name not in winners]:
        raise UsageError(
            f"no lever {', '.join(unknown)}",
            expected=f"kind=form, or on {backend} a kind that has a winner: {', '.join(winners) or 'none'}",
            where="--levers",
        )
    levers: list[tuple[str, Form]] = []
    for name in options.levers or winners:
        levers += parse_forms(name if "=" in name else f"{name}={winners[name]}", where="--levers").items()
    if native := [kind for kind, form in levers if form == "native"]:
        raise UsageError(
            f"{', '.join(f'{kind}=native' for kind in native)}: native is what the other forms are set beside",
            where="--levers",
        )
    idle = [kind for kind, _ in levers if kind not in OPERATIONS and not _networks(kind, options)]
    if options.levers and idle:
        evaluation = any(kind in _EVALUATION_ONLY for kind in idle)
        raise UsageError(
            f"nothing to measure of {', '.join(idle)}: no operation alone, only a network "
            f"{'in evaluation ' if evaluation else ''}shows what it does",
            expected="networks" + (", in inference" if evaluation else ""),
            where="--levers",
            remedy=f"add {'--mode infer ' if evaluation else ''}--models densenet121",
        )
    return levers


_EVALUATION_ONLY = ("growth",)
"""Kinds that change nothing in a training step."""


def _networks(kind: str, options: LeverOptions) -> tuple[str, ...]:
    """Those whose step in the chosen mode has operations of that kind."""
    return () if kind in _EVALUATION_ONLY and options.mode == "train" else options.models


TAKEN_BEFORE = {
    "library": "three_by_three",
    "dense": "three_by_three",
    "pointwise": "library",
    "large_kernel": "library",
    "strided": "library",
}
"""Kinds whose operations another kind's winner computes where it serves: their forms are measured without that."""

Contenders = dict[str, Any]
"""`without` and `with` the form: each has `run(steps)`, and `costs` of compiling."""


def _subjects(kind: str, form: Form, options: LeverOptions) -> Iterator[tuple[str, Contenders]]:
    """Operations of that kind, then networks: (name, the two contenders)."""
    from wbc_jax.bench.lever_operations import OPERATIONS, OperationSubject
    from wbc_jax.bench.subject import Case, InferSubject, TrainSubject
    from wbc_jax.runtime.devices import activation_dtype

    dtype = activation_dtype(options.precision)
    among: dict[str, Form] = {TAKEN_BEFORE[kind]: "native"} if kind in TAKEN_BEFORE else {}
    tables: dict[str, dict[str, Form]] = {"without": {**among, kind: "native"}, "with": {**among, kind: form}}
    for operation in OPERATIONS.get(kind, ()):
        yield (
            operation.name,
            {
                name: OperationSubject(operation, options.batch_size, dtype, table)
                for name, table in tables.items()
            },
        )
    step, subject = ("training", TrainSubject) if options.mode == "train" else ("inference", InferSubject)
    for model in _networks(kind, options):
        case = Case(model, options.mode, options.batch_size, options.image_size_px, 5, dtype)
        yield f"{model} {step} step", {name: subject(case, chosen=table) for name, table in tables.items()}


def _row(
    subject: str, lever: str, without: Timing, chosen: Timing, options: LeverOptions, machine: Machine
) -> LeverRow:
    import numpy as np

    from wbc_jax.runtime.devices import activation_dtype

    return LeverRow(
        date=machine.date,
        commit=machine.commit,
        device=machine.device,
        backend=machine.backend,
        threads=machine.threads,
        load_average=machine.load_average,
        versions=machine.versions,
        subject=subject,
        batch_size=options.batch_size,
        lever=lever,
        without_ms=1e3 * without.median,
        with_ms=1e3 * chosen.median,
        ratio=without.median / chosen.median,
        repeats=options.repeats,
        timed_steps=options.steps(),
        precision=np.dtype(activation_dtype(options.precision)).name,
        without_iqr_ms=1e3 * without.iqr,
        with_iqr_ms=1e3 * chosen.iqr,
        ratio_iqr=interquartile_range(paired_ratios(chosen, without)),
        device_detail=machine.device_detail,
        xla_flags=machine.xla_flags,
    )

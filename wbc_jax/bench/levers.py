"""`benchmark levers`: what each form in the table of winners gains over XLA's native one, per operation and network."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from wbc_jax.bench.options import TimingOptions
from wbc_jax.bench.schema import describe_machine
from wbc_jax.bench.timing import time_interleaved
from wbc_jax.errors import EXIT_OK, UsageError

if TYPE_CHECKING:  # jax is slow to import, and the command line lists benchmarks without it
    from wbc_jax.models.lowerings import Form


@dataclass(frozen=True, kw_only=True)
class LeverOptions(TimingOptions):
    """Each lever on and off, in turns."""

    levers: tuple[str, ...] = ()
    """Kinds of operations; none: all that this backend has a winner for."""
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
    """Median, in the form of the table."""
    ratio: float
    """without_ms over with_ms."""
    repeats: int


def run_levers(options: LeverOptions) -> int:
    """Measure each lever on and off, in turns, on operations and on whole steps."""
    options.check()
    import jax

    from wbc_jax.models.lowerings import WINNERS

    backend = jax.default_backend()
    winners: dict[str, Form] = {kind: form for (where, kind), form in WINNERS.items() if where == backend}
    unknown = sorted(set(options.levers) - set(winners))
    if unknown:
        raise UsageError(
            f"no lever {', '.join(unknown)}",
            expected=f"some of {', '.join(winners) or 'none: this backend computes every kind natively'}",
            where="--levers",
        )
    if idle := [kind for kind in options.levers if kind in _EVALUATION_ONLY and not _networks(kind, options)]:
        raise UsageError(
            f"nothing to measure of {', '.join(idle)}, which serves evaluation alone and has no operation of its own",
            expected="networks, in inference",
            where="--levers",
            remedy="add --mode infer --models densenet121",
        )
    machine = describe_machine()
    for kind in options.levers or tuple(winners):
        for subject, contenders in _subjects(kind, winners[kind], options):
            timings = time_interleaved(
                contenders,
                warmup_steps=options.warmup_steps,
                timed_steps=options.steps(),
                repeats=options.repeats,
            )
            without, chosen = (1e3 * timings[name].median for name in ("without", "with"))
            row = LeverRow(
                date=machine.date,
                commit=machine.commit,
                device=machine.device,
                backend=machine.backend,
                threads=machine.threads,
                load_average=machine.load_average,
                versions=machine.versions,
                subject=subject,
                batch_size=options.batch_size,
                lever=f"{kind}={winners[kind]}",
                without_ms=without,
                with_ms=chosen,
                ratio=without / chosen,
                repeats=options.repeats,
            )
            print(
                f"{subject:34} {row.lever:22} {without:9.1f} ms -> {chosen:9.1f} ms  x{row.ratio:.2f}",
                flush=True,
            )
            if options.out is not None:
                _append(options.out, row)
    return EXIT_OK


_EVALUATION_ONLY = ("growth",)
"""Kinds that change nothing in a training step."""


def _networks(kind: str, options: LeverOptions) -> tuple[str, ...]:
    """Those whose step in the chosen mode has operations of that kind."""
    return () if kind in _EVALUATION_ONLY and options.mode == "train" else options.models


Contenders = dict[str, Callable[[int], object]]


def _tables(kind: str, form: Form) -> dict[str, dict[str, Form]]:
    return {"without": {kind: "native"}, "with": {kind: form}}


def _subjects(kind: str, form: Form, options: LeverOptions) -> list[tuple[str, Contenders]]:
    """Operations of that kind, then networks: (name, the two contenders)."""
    from wbc_jax.bench.lever_operations import OPERATIONS, gradient_chain
    from wbc_jax.models.lowerings import forms

    subjects = []
    for operation in OPERATIONS.get(kind, ()):
        contenders: Contenders = {}
        for name, table in _tables(kind, form).items():
            with forms(**table):
                contenders[name] = gradient_chain(operation, options.batch_size)
        subjects.append((operation.name, contenders))
    for model in _networks(kind, options):
        step = "training step" if options.mode == "train" else "inference step"
        subjects.append((f"{model} {step}", _steps(model, kind, form, options)))
    return subjects


def _steps(model: str, kind: str, form: Form, options: LeverOptions) -> Contenders:
    from wbc_jax.bench.subject import Case, InferSubject, TrainSubject
    from wbc_jax.models.lowerings import forms
    from wbc_jax.runtime.devices import activation_dtype

    contenders: Contenders = {}
    for name, table in _tables(kind, form).items():
        case = Case(
            model,
            options.mode,
            options.batch_size,
            options.image_size_px,
            5,
            activation_dtype(options.precision),
        )
        subject = TrainSubject if options.mode == "train" else InferSubject
        with forms(**table):
            contenders[name] = subject(case).run
    return contenders


def _append(path: Path, row: LeverRow) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in asdict(row).items()}
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(values))
        if file.tell() == 0:
            writer.writeheader()
        writer.writerow(values)

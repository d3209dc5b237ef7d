"""`benchmark step`: a training or prediction step on a fixed synthetic batch, one network after the other."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from wbc_jax.bench.energy import energy_meter
from wbc_jax.bench.limits import device_limits
from wbc_jax.bench.options import ModelOptions, on_cpu
from wbc_jax.bench.schema import Machine, Row, append_rows, describe_machine
from wbc_jax.bench.subject import Case, InferSubject, TrainSubject
from wbc_jax.bench.table import print_rows
from wbc_jax.bench.timing import Timing, time_interleaved
from wbc_jax.bench.traffic import count_traffic, element_bytes
from wbc_jax.errors import EXIT_OK

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class StepOptions(ModelOptions):
    """A step on a fixed batch."""


def run_step(options: StepOptions) -> int:
    """Measure training or prediction steps on a fixed synthetic batch."""
    options.check()
    cases = make_cases(options)
    machine = describe_machine()
    rows = []
    for case, subject in zip(cases, make_subjects(cases), strict=True):
        timing = time_interleaved(
            {"ours": subject.run},
            warmup_steps=options.warmup_steps,
            timed_steps=options.steps(),
            repeats=options.repeats,
            meter=energy_meter(machine.backend),
        )["ours"]
        row = Row(
            benchmark="step",
            data_mode="synthetic-fixed",
            **case_columns(case),
            **timing_columns(timing, case.batch_size, options),
            **subject_columns(subject, case),
            **traffic_columns(case, timing, machine),
        )
        rows.append(row)
        if options.out is not None:  # at once: an interruption costs the network under way, not all
            append_rows(options.out, machine, [row])
    print_rows(machine, rows)
    return EXIT_OK


def make_cases(options: ModelOptions) -> list[Case]:
    """A case for each network; every unknown name is refused before the first is compiled."""
    from wbc_jax.runtime.devices import activation_dtype

    cases = [
        Case(
            model_name=name,
            mode=options.mode,
            batch_size=options.batch(),
            image_size_px=options.image_size_px,
            num_classes=options.num_classes,
            dtype=activation_dtype(options.precision),
        )
        for name in options.models
    ]
    for case in cases:
        _ = case.model
    return cases


def make_subjects(cases: Sequence[Case]) -> Iterator[TrainSubject | InferSubject]:
    """Our step for each case, compiled as `compile_all` does."""

    def make(case: Case) -> TrainSubject | InferSubject:
        return TrainSubject(case) if case.mode == "train" else InferSubject(case)

    return compile_all([functools.partial(make, case) for case in cases])


def compile_all(makers: Sequence[Callable[[], T]]) -> Iterator[T]:
    """What each of the functions returns, a compiled step, in their order.

    On accelerators all are compiled at once, each in a thread of its own, as XLA lets go of Python's lock. The first
    is handed out when the last is ready: the compiler tries kernels on the device, beside which nothing can be timed.
    On a CPU one after the other, when its turn comes.
    """
    if on_cpu():
        yield from (make() for make in makers)
        return
    with ThreadPoolExecutor(len(makers)) as pool:
        made = list(pool.map(lambda make: make(), makers))
    while made:
        yield made.pop(0)  # and let go of: what was measured frees its memory


def case_columns(case: Case) -> dict[str, Any]:
    """Columns that say what was run."""
    import numpy as np

    return {
        "model": case.model_name,
        "mode": case.mode,
        "precision": np.dtype(case.dtype).name,
        "batch_size": case.batch_size,
        "image_size_px": case.image_size_px,
    }


def timing_columns(timing: Timing, batch_size: int, options: Any) -> dict[str, Any]:
    """Columns of a measured chain."""
    return {
        "images_per_s": batch_size / timing.median,
        "step_ms": 1e3 * timing.median,
        "iqr_ms": 1e3 * timing.iqr,
        "warmup_steps": options.warmup_steps,
        "timed_steps": options.steps(),
        "repeats": options.repeats,
        "joules_per_image": None if timing.joules is None else timing.joules / batch_size,
    }


def subject_columns(
    subject: TrainSubject | InferSubject, case: Case, steps_per_call: int = 1
) -> dict[str, Any]:
    """Columns of what compiling cost and said of the program, and of the losses of a training step."""
    costs, images = subject.costs, case.batch_size * steps_per_call
    columns: dict[str, Any] = {
        "compile_s": None if costs.from_cache else costs.compile_s,
        "peak_memory_gib": costs.peak_memory_gib,
        "xla_gflop_per_image": None if costs.flops is None else costs.flops / images / 1e9,
        "xla_mb_per_image": None if costs.bytes_accessed is None else costs.bytes_accessed / images / 1e6,
    }
    if isinstance(subject, TrainSubject):
        columns |= {"loss_first": subject.first_loss, "loss_after": subject.last_loss}
    return columns


def traffic_columns(case: Case, timing: Timing, machine: Machine) -> dict[str, Any]:
    """Columns that set a rate against what the device allows."""
    traffic = count_traffic(case.model, case.image_size_px, case.mode, element_bytes(case.dtype))
    columns = case_columns(case)
    limits = device_limits(machine, columns["precision"])
    rate = case.batch_size / timing.median
    return {
        "gflop_per_image": traffic.flops / 1e9,
        "mb_per_image": traffic.total_bytes / 1e6,
        "traffic_limit_percent": limits.traffic_percent(rate, traffic),
        "bandwidth_gb_per_s": None if limits.bytes_per_s is None else limits.bytes_per_s / 1e9,
        "mfu_percent": limits.mfu_percent(rate, traffic),
    }

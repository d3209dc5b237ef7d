"""`benchmark end-to-end`: what input and augmentation add to a training step on a fixed synthetic batch."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wbc_jax.bench.options import ModelOptions
from wbc_jax.bench.schema import Machine, Row, append_rows, describe_machine
from wbc_jax.bench.step import case_columns, make_cases, subject_columns, timing_columns, traffic_columns
from wbc_jax.bench.table import print_rows
from wbc_jax.bench.timing import interquartile_range, paired_ratios, steps_in_all, time_interleaved
from wbc_jax.errors import EXIT_OK, UsageError

_DATA_MODES = {"synthetic": "synthetic-fixed", "stream": "streaming", "resident": "device-resident"}


@dataclass(frozen=True, kw_only=True)
class EndToEndOptions(ModelOptions):
    """Training steps with real input, beside one on a fixed batch."""

    models: tuple[str, ...] = ("scam_tiny",)
    """Networks by name; `wbc_jax.models.list_models()` lists all."""
    images: int = 2048
    """Images in the store of noise that is generated."""
    store_size_px: int = 256
    """Side of the images in the store, px."""
    stream_workers: int = 0
    """Worker processes of the streaming loader; 0: none."""


def run_end_to_end(options: EndToEndOptions) -> int:
    """Measure training steps fed by stream and by gather, with augmentation, against a fixed batch."""
    options.check()
    if options.mode != "train":
        raise UsageError("--mode infer", expected="train: input is measured under training steps")
    cases = make_cases(options)
    machine = describe_machine()
    rows: list[Row] = []
    for case in cases:
        measured = _measure(case, options, machine)
        rows += measured
        if options.out is not None:
            append_rows(options.out, machine, measured)
    print_rows(machine, rows)
    return EXIT_OK


def _measure(case: Any, options: EndToEndOptions, machine: Machine) -> list[Row]:
    from wbc_jax.bench.feeds import Feed, default_augment, stream_is_possible
    from wbc_jax.bench.subject import TrainSubject
    from wbc_jax.bench.synthetic_store import write_noise_store
    from wbc_jax.data.resident import gather

    augment = default_augment(case.image_size_px)
    # A subject fetches the next step's batch before it returns: one step more, and one to keep the stream open.
    total = steps_in_all(options.warmup_steps, options.steps(), options.repeats) + 2
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        store = write_noise_store(
            Path(folder) / "store", options.images, options.store_size_px, options.num_classes
        )
        feed = Feed(store, case.batch_size, options.stream_workers)
        subjects = {"synthetic": TrainSubject(case)}
        if stream_is_possible():
            batches = stack.enter_context(feed.stream(total))
            subjects["stream"] = TrainSubject(case, augment=augment, sources=_alone(batches))
        resident = feed.resident_sources()
        subjects["resident"] = TrainSubject(case, augment=augment, gather=gather, sources=resident)
        timings = time_interleaved(
            {name: subject.run for name, subject in subjects.items()},
            warmup_steps=options.warmup_steps,
            timed_steps=options.steps(),
            repeats=options.repeats,
        )
    synthetic = timings["synthetic"]
    rows = []
    for name, timing in timings.items():
        beside = {
            "peer": "synthetic-fixed",
            "peer_images_per_s": case.batch_size / synthetic.median,
            "peer_iqr_ms": 1e3 * synthetic.iqr,
            "ratio": synthetic.median / timing.median,
            "ratio_iqr": interquartile_range(paired_ratios(timing, synthetic)),
            "input_overhead_percent": 100.0 * (timing.median / synthetic.median - 1.0),
        }
        rows.append(
            Row(
                benchmark="end-to-end",
                data_mode=_DATA_MODES[name],
                images=options.images,
                **case_columns(case),
                **timing_columns(timing, case.batch_size, options),
                **subject_columns(subjects[name], case),
                **traffic_columns(case, timing, machine),
                **({} if name == "synthetic" else beside),
            )
        )
    return rows


def _alone(batches: Iterator[Any]) -> Iterator[tuple[Any, ...]]:
    for batch in batches:
        yield (batch,)

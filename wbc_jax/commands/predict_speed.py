"""`benchmark predict`: image files through `wbc-jax predict`, beside the network alone on images in memory."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wbc_jax.bench.options import TimingOptions
from wbc_jax.bench.schema import Row, append_rows, describe_machine
from wbc_jax.bench.table import print_rows
from wbc_jax.bench.timing import RunChain, interquartile_range, paired_ratios, time_interleaved
from wbc_jax.errors import EXIT_OK, UsageError

if TYPE_CHECKING:
    from wbc_jax.commands.predictor import Predictor


@dataclass(frozen=True, kw_only=True)
class PredictSpeedOptions(TimingOptions):
    """Prediction of image files, decoded, framed and written as a user's are, beside the network alone."""

    source: Path | None = None
    """Run directory or exported model; activations have the type that it computes in."""
    paths: tuple[Path, ...] = ()
    """Image files, or folders that hold them; taken again from the start as often as needed."""
    batch_size: int = 64
    """Images per call of the network."""


def run_predict_speed(options: PredictSpeedOptions) -> int:
    """Measure prediction of image files against the network alone, in turns."""
    from wbc_jax.commands.image_files import no_images, require_paths, walk_images
    from wbc_jax.commands.predictor import load_predictor

    options.check()
    if options.source is None:
        raise UsageError("no network", expected="a run directory or an exported model", where="--source")
    if options.precision != "auto":
        raise UsageError(f"--precision {options.precision}", expected="auto: as the network was trained")
    require_paths(options.paths)
    files = list(walk_images(options.paths))
    if not files:
        raise no_images(options.paths)
    machine, predictor = describe_machine(), load_predictor(options.source)
    batch_size = predictor.batch_size(options.batch_size)
    with tempfile.TemporaryDirectory() as folder:
        timings = time_interleaved(
            _contenders(predictor, files, batch_size, Path(folder)),
            warmup_steps=options.warmup_steps,
            timed_steps=options.steps(),
            repeats=options.repeats,
        )
    network = timings["network"]
    rows = []
    for name, timing in timings.items():
        beside = {
            "peer": "network",
            "peer_images_per_s": batch_size / network.median,
            "peer_iqr_ms": 1e3 * network.iqr,
            "ratio": network.median / timing.median,
            "ratio_iqr": interquartile_range(paired_ratios(timing, network)),
        }
        rows.append(
            Row(
                benchmark="predict",
                model=options.source.name,
                mode="infer",
                data_mode="synthetic-fixed" if name == "network" else "files",
                precision="as trained",
                batch_size=batch_size,
                image_size_px=predictor.size_px,
                images=len(files),
                images_per_s=batch_size / timing.median,
                step_ms=1e3 * timing.median,
                iqr_ms=1e3 * timing.iqr,
                warmup_steps=options.warmup_steps,
                timed_steps=options.steps(),
                repeats=options.repeats,
                variant=name,
                **({} if name == "network" else beside),
            )
        )
    if options.out is not None:
        append_rows(options.out, machine, rows)
    print_rows(machine, rows)
    return EXIT_OK


def _contenders(
    predictor: Predictor, files: list[Path], batch_size: int, folder: Path
) -> dict[str, RunChain]:
    import jax
    import numpy as np

    from wbc_jax.commands.predict import PredictOptions, decoded, predict_part
    from wbc_jax.commands.prediction_parts import PredictionParts

    options = PredictOptions(batch_size=batch_size, on_bad_image="stop")
    parts = PredictionParts(folder / "predictions.csv", "benchmark")
    supply, numbers = itertools.cycle(files), itertools.count()
    size_px = predictor.size_px
    noise = np.random.default_rng(0).integers(0, 256, (batch_size, size_px, size_px, 3), np.uint8)
    noise = predictor.place(noise)  # once: the network alone waits for no transfer

    def network(steps: int) -> None:
        jax.block_until_ready([predictor.predict(noise) for _ in range(steps)])

    def from_files(steps: int) -> None:
        taken = itertools.islice(supply, steps * batch_size)
        with contextlib.closing(decoded(predictor, taken, predictor.framing, options)) as images:
            predict_part(predictor, images, options, parts, next(numbers))

    return {"network": network, "predict": from_files}

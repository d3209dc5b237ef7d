"""`wbc-jax predict`: classes and attributes of image files, from a run or an exported model."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from wbc_jax.commands.image_files import find_images, make_batches, none_readable, read_images
from wbc_jax.commands.run import load_run
from wbc_jax.data.decode import BadImage
from wbc_jax.data.framing import Framing
from wbc_jax.errors import EXIT_OK, UsageError
from wbc_jax.evaluate.predictions import prediction_rows, write_predictions
from wbc_jax.export.stablehlo import SUFFIX as STABLEHLO_SUFFIX
from wbc_jax.export.stablehlo import load_stablehlo
from wbc_jax.runtime.progress import track
from wbc_jax.train.steps import Prediction

_LISTED_IMAGES = 20


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """Options of `wbc-jax predict`."""

    out: Path = Path("predictions.csv")
    """File for the predictions, .csv or .json, a row per image: path, predicted, confidence, prob_<class> …; of a
    network that predicts morphology also <attribute> and <attribute>_confidence of all eleven."""
    batch_size: int = 64
    """Images per call of the network; any value gives the same result."""
    on_bad_image: Literal["stop", "skip"] = "skip"
    """An unreadable image: skip it and list it at the end and in <out>.skipped.csv, or stop there."""
    framing: Framing | None = None
    """How an image becomes square; None: as the network was trained."""


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """A network ready to classify images.

    Attributes:
        class_names: the K classes.
        framing: how images were made square for training.
        size_px: side of the squares that `predict` takes, px.
        predict: uint8 `(B, size_px, size_px, 3)` -> what the network says of them; compiled once a batch size.
    """

    class_names: tuple[str, ...]
    framing: Framing
    size_px: int
    predict: Callable[[np.ndarray], Prediction]


def load_predictor(source: Path) -> Predictor:
    """A run directory, or a .stablehlo file with its card beside it.

    Raises:
        UsageError: it is neither.
        DataError, CheckpointError: it is damaged.
    """
    source = Path(source)
    if source.is_dir():
        run = load_run(source)
        step, variables = jax.jit(run.predict_step()), jax.device_put(run.variables)
        return Predictor(
            class_names=run.task.class_names,
            framing=run.framing,  # pyright: ignore[reportArgumentType]
            size_px=run.config.data.store_size_px,
            predict=lambda images: step(variables, images),
        )
    if source.suffix == STABLEHLO_SUFFIX:
        model = load_stablehlo(source)
        return Predictor(
            class_names=model.class_names,
            framing=model.framing,  # pyright: ignore[reportArgumentType]
            size_px=model.size_px,
            predict=model.call,
        )
    raise UsageError(
        f"{source} is neither a run directory nor an exported model"
        if source.exists()
        else f"no such file or folder: {source}",
        expected=f"the directory that `wbc-jax train` printed, or a {STABLEHLO_SUFFIX} file",
        remedy=f"wbc-jax export RUN_DIR --format stablehlo --out model{STABLEHLO_SUFFIX}",
    )


def predict(source: Path, paths: tuple[Path, ...], options: PredictOptions) -> int:
    """Classifies image files; returns the exit code.

    Memory does not grow with their number: they are decoded a little ahead of the network, and rows are written as
    they come.

    Raises:
        UsageError: nothing to classify, or options that cannot be.
        BadImage: an unreadable image, with `on_bad_image` stop.
        DataError: no image at all could be read.
    """
    _check(options)
    files = find_images(paths)
    predictor = load_predictor(source)
    skipped: list[BadImage] = []
    counts: Counter[str] = Counter()

    def rows() -> Iterator[dict[str, str]]:
        images = read_images(
            files,
            size_px=predictor.size_px,
            framing=options.framing or predictor.framing,
            on_bad_image=options.on_bad_image,
        )
        counted = track(images, "images", total=len(files))
        for batch in make_batches(counted, min(options.batch_size, len(files)), skipped):
            count = len(batch.paths)
            said = jax.tree.map(lambda values: np.asarray(values)[:count], predictor.predict(batch.images))  # noqa: B023
            for row in prediction_rows(
                batch.paths,
                said.probabilities,
                predictor.class_names,
                attribute_probabilities=said.attribute_probabilities,
            ):
                counts[row["predicted"]] += 1
                yield row
        _write_skipped(skipped, options.out)
        if not counts:
            raise none_readable(skipped)

    try:
        write_predictions(options.out, rows())
    finally:
        options.out.with_name(options.out.name + ".part").unlink(missing_ok=True)
    _show(predictor.class_names, counts, skipped, options.out)
    return EXIT_OK


def _check(options: PredictOptions) -> None:
    problems = []
    if options.batch_size < 1:
        problems.append(f"batch_size {options.batch_size}: must be 1 or more")
    if options.out.suffix not in (".csv", ".json"):
        problems.append(f"out {options.out}: must end in .csv or .json")
    elif options.out.is_dir():
        problems.append(f"out {options.out}: is a folder")
    if problems:
        raise UsageError("\n".join(problems), where="wbc-jax predict")


def skipped_path(out: Path) -> Path:
    """Where the unreadable images are listed."""
    return out.with_suffix(".skipped.csv")


def _write_skipped(skipped: list[BadImage], out: Path) -> None:
    """The list, or no file: one of an earlier call would mislead."""
    path = skipped_path(out)
    if not skipped:
        path.unlink(missing_ok=True)
        return
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "reason"])
        writer.writerows([problem.name, problem.reason] for problem in skipped)


def _show(class_names: tuple[str, ...], counts: Counter[str], skipped: list[BadImage], out: Path) -> None:
    total = sum(counts.values())
    table = Table("predicted", "images", "share", box=None)
    for name in class_names:
        table.add_row(name, str(counts[name]), f"{counts[name] / total:.1%}")
    Console().print(table)
    print(f"{total} images classified: {out}")
    if skipped:
        print(f"{len(skipped)} could not be used, listed in {skipped_path(out)}:")
        for problem in skipped[:_LISTED_IMAGES]:
            print(f"  {problem.name}: {problem.reason}")
        if len(skipped) > _LISTED_IMAGES:
            print(f"  and {len(skipped) - _LISTED_IMAGES} more")

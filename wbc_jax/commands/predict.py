"""`wbc-jax predict`: classes and attributes of image files, from a run or an exported model."""

from __future__ import annotations

import collections
import contextlib
import csv
import itertools
import os
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from wbc_jax.commands.image_files import (
    DecodedImage,
    ImageBatch,
    make_batches,
    no_images,
    none_readable,
    read_images,
    require_paths,
    walk_images,
)
from wbc_jax.commands.predict_ray import classify_on_ray, leave_accelerators_to_actors
from wbc_jax.commands.prediction_parts import PartNote, PredictionParts, Tally, writing
from wbc_jax.commands.predictor import Predictor, load_predictor
from wbc_jax.commands.shards import (
    Shard,
    find_shard,
    is_finished,
    job_digest,
    mark_finished,
    survey,
)
from wbc_jax.config import Precision
from wbc_jax.data.decode import BadImage
from wbc_jax.data.framing import Framing
from wbc_jax.errors import EXIT_OK, UsageError
from wbc_jax.evaluate.prediction_formats import FORMATS, format_of
from wbc_jax.evaluate.predictions import prediction_rows
from wbc_jax.runtime.progress import track
from wbc_jax.train.steps import Prediction

_READ_AHEAD = 64
_BATCHES_ON_DEVICE = 2
_LISTED_IMAGES = 20


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """Options of `wbc-jax predict`."""

    out: Path = Path("predictions.csv")
    """File for the predictions, .csv, .json or .parquet, a row per image: path, predicted, confidence,
    prob_<class> …; of a network that predicts morphology also <attribute> and <attribute>_confidence of all eleven."""
    batch_size: int = 64
    """Images per call of the network, rounded up to a multiple of the devices; any value gives the same result."""
    precision: Precision = "auto"
    """Type of a run's activations; auto: bfloat16 on accelerators, float32 on CPU. An exported model has its own."""
    on_bad_image: Literal["stop", "skip"] = "skip"
    """An unreadable image: skip it and list it at the end and in <out>.skipped.csv, or stop there."""
    framing: Framing | None = None
    """How an image becomes square; None: as the network was trained."""
    shard: str = "off"
    """Do one of several equal shares of the images, such as 3/16 (of 0/16 to 15/16), into a file of its own,
    <out>-00003-of-00016; auto: the share that SLURM's, torchrun's or Open MPI's variables give this process."""
    part_images: int = 16_384
    """Images after which the work is safe: an interrupted call goes on behind its last complete part."""
    engine: Literal["local", "ray"] = "local"
    """Who does the parts: this process, or actors of a Ray cluster, whose machines all see network, images and out."""
    ray_actors: int = 1
    """Actors of the Ray engine; each takes one accelerator where there are any."""


def predict(source: Path, paths: tuple[Path, ...], options: PredictOptions) -> int:
    """Classifies image files; returns the exit code.

    Memory does not grow with their number: folders are walked as they are read, images are decoded a little ahead of
    the network, and rows are written in parts as they come. After an interruption the same command goes on behind
    the last complete part; a shard that is finished is not done again.

    Raises:
        UsageError: nothing to classify, or options that cannot be.
        BadImage: an unreadable image, with `on_bad_image` stop.
        DataError: no image at all could be read.
    """
    _check(options)
    shard = find_shard(options.shard, os.environ)
    out = shard.out(options.out)
    require_paths(paths)
    images = survey(paths, shard)
    if images.count == 0:
        raise no_images(paths)
    with writing(out):
        if options.engine == "ray":
            leave_accelerators_to_actors()
        predictor = load_predictor(source, options.precision)
        options = replace(options, batch_size=min(options.batch_size, max(images.here, 1)))
        framing = options.framing or predictor.framing
        job = job_digest(predictor.digest, images.digest, framing, shard, options.part_images)
        parts = PredictionParts(out.absolute(), job)
        if shard.count > 1 and is_finished(out, job):
            parts.remove()
            print(f"shard {shard.index} of {shard.count} is finished: {out}; nothing to do.")
            return EXIT_OK
        files = shard.take(walk_images(paths))
        try:
            if options.engine == "ray":
                absolute = (file.absolute() for file in files)
                notes = classify_on_ray(source, absolute, framing, options, parts)
            else:
                notes = _classify_here(predictor, files, images.here, framing, options, parts)
        except BaseException:
            if not parts.any_done():
                parts.remove()
            raise
        return _conclude(predictor.class_names, notes, parts, out, job, shard)


def _classify_here(
    predictor: Predictor,
    files: Iterator[Path],
    count: int,
    framing: Framing,
    options: PredictOptions,
    parts: PredictionParts,
) -> list[PartNote]:
    """Makes the parts one after the other, from the first one that is not complete."""
    notes = parts.done()
    already = sum(note.images for note in notes)
    if already:
        print(f"{already} of {count} images were classified before, in {len(notes)} complete parts")
    files = itertools.islice(files, already, None)
    bar = track(range(count - already), "images", total=count - already)
    with contextlib.closing(decoded(predictor, files, framing, options)) as images:
        while (first := next(images, None)) is not None:
            taken = itertools.islice(itertools.chain((first,), images), options.part_images)
            notes.append(
                predict_part(predictor, taken, options, parts, len(notes), seen=lambda: next(bar, None))
            )
    collections.deque(bar, maxlen=0)  # its last line
    return notes


def decoded(
    predictor: Predictor, files: Iterable[Path], framing: Framing, options: PredictOptions
) -> Generator[DecodedImage]:
    """The images that a network takes, decoded ahead; to be closed.

    Raises:
        BadImage: an unreadable image, with `on_bad_image` stop.
    """
    return read_images(
        files,
        size_px=predictor.size_px,
        framing=framing,
        on_bad_image=options.on_bad_image,
        read_ahead=max(_READ_AHEAD, 2 * predictor.batch_size(options.batch_size)),
    )


def predict_part(
    predictor: Predictor,
    images: Iterable[DecodedImage],
    options: PredictOptions,
    parts: PredictionParts,
    index: int,
    seen: Callable[[], object] = lambda: None,
) -> PartNote:
    """Classifies images and writes them as one part; `seen` is called at each image.

    Raises:
        BadImage: what `images` raises, with `on_bad_image` stop.
    """
    tally = Tally()

    def noticed() -> Iterator[DecodedImage]:
        for image in images:
            tally.images += 1
            seen()
            yield image

    def rows() -> Iterator[dict[str, str]]:
        batches = make_batches(noticed(), predictor.batch_size(options.batch_size), tally.skipped)
        for batch, said in _answers(predictor, batches):
            attributes = said.attribute_probabilities
            attributes = None if attributes is None else np.asarray(attributes)
            for row in prediction_rows(
                batch.paths,
                np.asarray(said.probabilities),
                predictor.class_names,
                attribute_probabilities=attributes,
            ):
                tally.predicted[row["predicted"]] += 1
                yield row

    return parts.write(index, rows(), tally)


def _answers(predictor: Predictor, batches: Iterator[ImageBatch]) -> Iterator[tuple[ImageBatch, Prediction]]:
    """Each batch with what the network says of it. The device works on one batch while the host reads the last."""
    waiting: collections.deque[tuple[ImageBatch, Prediction]] = collections.deque()
    for batch in batches:
        waiting.append((batch, predictor.predict(predictor.place(batch.images))))
        if len(waiting) == _BATCHES_ON_DEVICE:
            yield _on_host(*waiting.popleft())
    while waiting:
        yield _on_host(*waiting.popleft())


def _on_host(batch: ImageBatch, said: Prediction) -> tuple[ImageBatch, Prediction]:
    count = len(batch.paths)
    return batch, jax.tree.map(lambda values: np.asarray(values)[:count], said)


def _conclude(
    class_names: tuple[str, ...],
    notes: list[PartNote],
    parts: PredictionParts,
    out: Path,
    job: str,
    shard: Shard,
) -> int:
    """Joins the parts, lists what could not be used, and says what came out."""
    skipped = [problem for note in notes for problem in note.skipped]
    counts = Counter[str]()
    for note in notes:
        counts.update(note.predicted)
    _write_skipped(skipped, out)
    if not counts and skipped:
        parts.remove()
        raise none_readable([BadImage(name, reason) for name, reason in skipped])
    parts.join(len(notes))
    if shard.count > 1:
        mark_finished(out, job, sum(counts.values()), len(skipped))
    parts.remove()  # last: until here a call that is cut off has all it needs to conclude
    _show(class_names, counts, skipped, out)
    return EXIT_OK


def _check(options: PredictOptions) -> None:
    problems = [
        f"{name} {value}: must be 1 or more"
        for name, value in (
            ("batch_size", options.batch_size),
            ("part_images", options.part_images),
            ("ray_actors", options.ray_actors),
        )
        if value < 1
    ]
    if options.engine == "ray" and options.shard != "off":
        problems.append(f"shard {options.shard}: the Ray engine shares the images out itself, leave it off")
    if options.out.suffix not in FORMATS:
        problems.append(f"out {options.out}: must end in {', '.join(FORMATS)}")
    elif options.out.is_dir():
        problems.append(f"out {options.out}: is a folder")
    if problems:
        raise UsageError("\n".join(problems), where="wbc-jax predict")
    format_of(options.out)


def skipped_path(out: Path) -> Path:
    """Where the unreadable images are listed."""
    return out.with_suffix(".skipped.csv")


def _write_skipped(skipped: list[tuple[str, str]], out: Path) -> None:
    """The list, or no file: one of an earlier call would mislead."""
    path = skipped_path(out)
    if not skipped:
        path.unlink(missing_ok=True)
        return
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "reason"])
        writer.writerows(skipped)


def _show(
    class_names: tuple[str, ...], counts: Counter[str], skipped: list[tuple[str, str]], out: Path
) -> None:
    total = max(sum(counts.values()), 1)
    table = Table("predicted", "images", "share", box=None)
    for name in class_names:
        table.add_row(name, str(counts[name]), f"{counts[name] / total:.1%}")
    Console().print(table)
    print(f"{sum(counts.values())} images classified: {out}")
    if skipped:
        print(f"{len(skipped)} could not be used, listed in {skipped_path(out)}:")
        for name, reason in skipped[:_LISTED_IMAGES]:
            print(f"  {name}: {reason}")
        if len(skipped) > _LISTED_IMAGES:
            print(f"  and {len(skipped) - _LISTED_IMAGES} more")

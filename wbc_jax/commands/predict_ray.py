"""`predict --engine ray`: the parts of a prediction spread over a Ray cluster.

Ray Data rather than Apache Beam: its actors load a network once and keep it on their accelerator, they are placed by
the accelerators they ask for, and a laptop is a cluster of one without a further service. An actor does what the local
command does, `predict.predict_part`, and writes the same parts into the same folder, which all machines must see; only
their numbers travel. A part whose actor is lost is done by another one.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from wbc_jax.commands.prediction_parts import PartNote, PredictionParts
from wbc_jax.commands.predictor import load_predictor
from wbc_jax.data.decode import BadImage
from wbc_jax.data.framing import Framing
from wbc_jax.errors import DataError, UsageError
from wbc_jax.runtime.progress import track

if TYPE_CHECKING:
    from wbc_jax.commands.predict import PredictOptions


def classify_on_ray(
    source: Path, files: Iterator[Path], framing: Framing, options: PredictOptions, parts: PredictionParts
) -> list[PartNote]:
    """Has all parts made that are not complete yet, and returns the notes of all of them.

    Raises:
        UsageError: Ray is not installed.
        BadImage: an unreadable image, with `on_bad_image` stop.
        DataError: a part was made and cannot be seen here.
    """
    ray, missing, count = _ray(), list[int](), 0
    while taken := list(itertools.islice(files, options.part_images)):
        if parts.note(count) is None:
            parts.write_list(count, taken)
            missing.append(count)
        count += 1
    if missing:
        rows = ray.data.from_items([{"part": index} for index in missing], override_num_blocks=len(missing))
        done = rows.map_batches(
            _Classifier,
            batch_size=1,
            fn_constructor_args=(source.resolve(), framing, options, parts),
            concurrency=min(options.ray_actors, len(missing)),
            **_accelerator(ray.cluster_resources()),
        )
        for row in track(done.iter_rows(), "parts", total=len(missing)):
            if row["bad_image"]:
                raise BadImage(row["bad_image"], row["reason"])
    notes = {index: note for index in range(count) if (note := parts.note(index)) is not None}
    if absent := [str(index) for index in range(count) if index not in notes]:
        raise DataError(
            f"parts {', '.join(absent)} of {count} were made and cannot be seen here",
            expected="one folder for all machines of the cluster",
            where=str(parts.folder),
            remedy="give an --out on a shared file system; the same command again makes what is missing",
        )
    return list(notes.values())


def leave_accelerators_to_actors() -> None:
    """Keeps this process on the CPU: it computes nothing, and would take the memory that an actor beside it needs."""
    jax.config.update("jax_platforms", "cpu")


def _accelerator(resources: Mapping[str, float]) -> dict[str, Any]:
    """What an actor asks for: one accelerator of the kind that the cluster has."""
    if resources.get("GPU"):
        return {"num_gpus": 1}
    return {"resources": {"TPU": 1}} if resources.get("TPU") else {}


class _Classifier:
    """An actor: a network, ready, and the parts it makes."""

    def __init__(
        self, source: Path, framing: Framing, options: PredictOptions, parts: PredictionParts
    ) -> None:
        self._predictor = load_predictor(source, options.precision)
        self._framing: Framing = framing
        self._options, self._parts = options, parts

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        from wbc_jax.commands.predict import decoded, predict_part

        index = int(batch["part"][0])
        bad_image, reason = "", ""
        try:
            files = self._parts.read_list(index)
            with contextlib.closing(decoded(self._predictor, files, self._framing, self._options)) as images:
                predict_part(self._predictor, images, self._options, self._parts, index)
        except BadImage as problem:  # as plain values: the driver raises it
            bad_image, reason = problem.name, problem.reason
        return {"part": [index], "bad_image": [bad_image], "reason": [reason]}


def _ray() -> Any:
    try:
        import ray  # pyright: ignore[reportMissingImports]
        import ray.data  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UsageError(
            f"Ray Data cannot be imported: {error}",
            expected="ray with its data part",
            where="--engine ray",
            remedy="pip install 'wbc-jax[ray]', or --engine local",
        ) from error
    return ray

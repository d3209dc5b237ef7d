"""The second of DAFFNet's steps: what a trained predictor says of the training images of other data sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np

from wbc_jax.catalog import ABSENT, label_map
from wbc_jax.commands.run import LoadedRun
from wbc_jax.commands.scoring import predict_samples
from wbc_jax.data.experiment import Divided, Samples
from wbc_jax.data.held_out import HeldOut, not_held_out
from wbc_jax.data.mixture import require_clean
from wbc_jax.data.pseudo_labels import PseudoLabels, PseudoSource
from wbc_jax.errors import DataError
from wbc_jax.models.attribute_groups import GROUP_SLICES
from wbc_jax.models.compiler import jit
from wbc_jax.train.steps import make_eval_step
from wbc_jax.weights.digest import variables_digest


@dataclass(frozen=True, kw_only=True, eq=False)
class Labelled:
    """Training images of one data set with what was predicted.

    Attributes:
        divided: the data set.
        rows: int64 `(n,)`, rows of its store.
        probabilities: float32 `(n, 31)`, within each attribute.
        left_out: training images that are not among them.
    """

    divided: Divided
    rows: np.ndarray
    probabilities: np.ndarray
    left_out: int


def predict_pseudo_labels(
    run: LoadedRun, others: Sequence[Divided], held: HeldOut, threshold: float
) -> PseudoLabels:
    """Attributes of the training images of `others` that are of a class of the run's task and held out nowhere.

    Args:
        run: a trained attribute predictor.
        others: the data sets.
        held: validation and test images of all data sets of the mix.
        threshold: least probability of a value that counts.

    Raises:
        DataError: nothing to predict on, or an image that is held out.
    """
    step = jit(
        make_eval_step(
            run.model,
            run.task,
            image_size_px=run.config.data.image_size_px,
            flip_average=run.config.eval.flip_average,
        )
    )
    variables = jax.device_put(run.variables)
    parts: list[Labelled] = []
    for divided in others:
        rows, labels, left_out = _usable(run, divided, held)
        if not len(rows):
            raise DataError(
                f"{divided.data.dataset} has no training images of {', '.join(run.task.class_names)}",
                expected="at least one that is held out nowhere",
                where="morphology.other_datasets",
                remedy="leave this data set out of the mix",
            )
        samples = Samples(
            store=divided.store,
            rows=rows,
            labels=labels,
            attributes=np.full((len(rows), len(GROUP_SLICES)), ABSENT, np.int32),
        )
        predicted = predict_samples(step, variables, samples, run.config.eval.batch_size)
        assert predicted.attribute_probabilities is not None
        parts.append(
            Labelled(
                divided=divided,
                rows=rows,
                probabilities=predicted.attribute_probabilities,
                left_out=left_out,
            )
        )
    require_clean(held, [(p.divided.data.dataset, p.divided.store.samples, p.rows) for p in parts])
    return pseudo_labels(parts, threshold, variables_digest(run.variables))


def pseudo_labels(parts: Sequence[Labelled], threshold: float, model_sha256: str) -> PseudoLabels:
    """The predictions as hard labels: the most probable value of each attribute, absent below the threshold."""
    probabilities = np.concatenate([part.probabilities for part in parts])
    groups = [probabilities[:, group] for group in GROUP_SLICES]
    best = np.stack([group.max(axis=1) for group in groups], axis=1)  # (n, 11)
    values = np.stack([group.argmax(axis=1) for group in groups], axis=1).astype(np.int32)
    return PseudoLabels(
        datasets=[p.divided.data.dataset for p in parts for _ in p.rows],
        ids=[p.divided.store.samples.ids[row] for p in parts for row in p.rows],
        sha256=[str(p.divided.store.samples.sha256[row]) for p in parts for row in p.rows],
        values=np.where(best >= threshold, values, np.int32(ABSENT)),
        probabilities=best,
        threshold=threshold,
        model_sha256=model_sha256,
        sources=tuple(_source(part) for part in parts),
    )


def _usable(run: LoadedRun, divided: Divided, held: HeldOut) -> tuple[np.ndarray, np.ndarray, int]:
    """Rows, their labels in the run's task, and how many training images are not among them."""
    columns = divided.store.samples
    labels = label_map(run.task, columns.cell_classes)[columns.cell_class]
    rows = divided.split.train
    kept, copies = not_held_out(held, columns, rows[labels[rows] >= 0])
    for name, reason in copies:
        print(f"{divided.data.dataset}: {name} is left out: {reason}")
    return kept, labels[kept], len(rows) - len(kept)


def _source(part: Labelled) -> PseudoSource:
    data = part.divided.data
    return PseudoSource(
        dataset=data.dataset,
        task=data.task,
        split=data.split,
        split_seed=data.split_seed,
        max_images_per_class=data.max_images_per_class,
        framing=data.framing,
        store_digest=part.divided.store.digest,
        split_digest=part.divided.split.digest,
        images=len(part.rows),
        left_out=part.left_out,
    )

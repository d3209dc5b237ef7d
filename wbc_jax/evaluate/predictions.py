"""The predictions file: one row per image, readable by any spreadsheet and by our own offline evaluation.

Columns: `path`, `label` (only where the truth is known), `predicted`, `confidence`, `prob_<class>` for every class.
A network that predicts morphology adds for each attribute its name, holding the value, and `<attribute>_confidence`,
and, where the truth is known, `true_<attribute>`, empty for what was not annotated.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wbc_jax.catalog import ABSENT, ATTRIBUTES
from wbc_jax.errors import DataError
from wbc_jax.evaluate.prediction_formats import format_of
from wbc_jax.models.attribute_groups import GROUP_SLICES


def prediction_rows(
    paths: Sequence[str],
    probabilities: np.ndarray,
    class_names: tuple[str, ...],
    labels: np.ndarray | None = None,
    attribute_probabilities: np.ndarray | None = None,
    attributes: np.ndarray | None = None,
) -> Iterator[dict[str, str]]:
    """Rows of the file.

    Args:
        paths: N image names.
        probabilities: float `(N, K)`.
        class_names: the K classes.
        labels: int `(N,)` true classes where known.
        attribute_probabilities: float `(N, 31)` where the network predicts attributes.
        attributes: int `(N, 11)` true values where known, -1 where not annotated.
    """
    best = probabilities.argmax(axis=1)
    for i, path in enumerate(paths):
        row = {"path": path}
        if labels is not None:
            row["label"] = class_names[labels[i]]
        row["predicted"] = class_names[best[i]]
        row["confidence"] = f"{probabilities[i, best[i]]:.6f}"
        row |= {f"prob_{name}": f"{p:.6f}" for name, p in zip(class_names, probabilities[i], strict=True)}
        if attribute_probabilities is not None:
            truth = None if attributes is None else attributes[i]
            row |= _attribute_cells(attribute_probabilities[i], truth)
        yield row


def _attribute_cells(probabilities: np.ndarray, truth: np.ndarray | None) -> dict[str, str]:
    """Cells of one image, from `(31,)` and, where known, the true values `(11,)`."""
    cells: dict[str, str] = {}
    for index, (attribute, part) in enumerate(zip(ATTRIBUTES, GROUP_SLICES, strict=True)):
        best = int(probabilities[part].argmax())
        cells[attribute.name] = attribute.values[best]
        cells[f"{attribute.name}_confidence"] = f"{probabilities[part][best]:.6f}"
        if truth is not None:
            known = truth[index] != ABSENT
            cells[f"true_{attribute.name}"] = attribute.values[truth[index]] if known else ""
    return cells


def write_predictions(path: Path, rows: Iterable[dict[str, str]]) -> int:
    """Writes rows as they come, in the form that the path's ending asks for; returns their number.

    All rows have the columns of the first. The file appears when it is complete.

    Raises:
        UsageError: the path ends in none of .csv, .json and .parquet, or pyarrow is missing for the last.
    """
    form = format_of(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    try:
        count = form.write(partial, rows)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return count


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledPredictions:
    """A predictions file with true classes, read.

    Attributes:
        paths: N image names.
        class_names: the K classes, in the order of the columns.
        labels: int64 `(N,)`.
        probabilities: float64 `(N, K)`, as written (six digits).
        predicted: int64 `(N,)`.
    """

    paths: tuple[str, ...]
    class_names: tuple[str, ...]
    labels: np.ndarray
    probabilities: np.ndarray
    predicted: np.ndarray

    def take(self, rows: np.ndarray) -> LabelledPredictions:
        """Some of the images, in the given order."""
        return LabelledPredictions(
            paths=tuple(self.paths[row] for row in rows),
            class_names=self.class_names,
            labels=self.labels[rows],
            probabilities=self.probabilities[rows],
            predicted=self.predicted[rows],
        )


def read_predictions(path: Path) -> LabelledPredictions:
    """Reads a CSV file of `write_predictions` whose images have true classes.

    Raises:
        DataError: no such file, or columns or values that it should not have.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        class_names = tuple(name.removeprefix("prob_") for name in rows[0] if name.startswith("prob_"))
        index = {name: i for i, name in enumerate(class_names)}
        return LabelledPredictions(
            paths=tuple(row["path"] for row in rows),
            class_names=class_names,
            labels=np.asarray([index[row["label"]] for row in rows]),
            probabilities=np.asarray([[float(row[f"prob_{name}"]) for name in class_names] for row in rows]),
            predicted=np.asarray([index[row["predicted"]] for row in rows]),
        )
    except (OSError, KeyError, ValueError, IndexError, TypeError) as error:
        raise DataError(
            f"not a predictions file with true classes: {error!r}",
            expected="CSV with path, label, predicted and prob_<class> columns, at least one row",
            where=str(path),
        ) from error

"""The predictions file: one row per image, readable by any spreadsheet and by our own offline evaluation.

Columns: `path`, `label` (only where the truth is known), `predicted`, `confidence`, `prob_<class>` for every class.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from wbc_jax.errors import UsageError


def prediction_rows(
    paths: Sequence[str],
    probabilities: np.ndarray,
    class_names: tuple[str, ...],
    labels: np.ndarray | None = None,
) -> Iterator[dict[str, str]]:
    """Rows of the file.

    Args:
        paths: N image names.
        probabilities: float `(N, K)`.
        class_names: the K classes.
        labels: int `(N,)` true classes where known.
    """
    best = probabilities.argmax(axis=1)
    for i, path in enumerate(paths):
        row = {"path": path}
        if labels is not None:
            row["label"] = class_names[labels[i]]
        row["predicted"] = class_names[best[i]]
        row["confidence"] = f"{probabilities[i, best[i]]:.6f}"
        row |= {f"prob_{name}": f"{p:.6f}" for name, p in zip(class_names, probabilities[i], strict=True)}
        yield row


def columns(class_names: tuple[str, ...], *, labelled: bool) -> list[str]:
    """Column names, in order."""
    known = ["label"] if labelled else []
    return ["path", *known, "predicted", "confidence", *(f"prob_{name}" for name in class_names)]


def write_predictions(path: Path, rows: Iterable[dict[str, str]], names: list[str]) -> int:
    """Writes rows as they come, as CSV or, for a path ending in .json, as a list of objects; returns their number.

    Raises:
        UsageError: the path ends in neither .csv nor .json.
    """
    if path.suffix not in (".csv", ".json"):
        raise UsageError(
            f"predictions cannot be written as {path.suffix or 'a file without ending'}",
            expected="a path that ends in .csv or .json",
            where=str(path),
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    count = 0
    with partial.open("w", newline="", encoding="utf-8") as file:
        if path.suffix == ".csv":
            writer = csv.DictWriter(file, fieldnames=names)
            writer.writeheader()
            for count, row in enumerate(rows, start=1):  # noqa: B007  the count is the result
                writer.writerow(row)
        else:
            file.write("[")
            for count, row in enumerate(rows, start=1):
                numbers = {
                    k: float(v) if k.startswith(("prob_", "confidence")) else v for k, v in row.items()
                }
                file.write(("," if count > 1 else "") + "\n" + json.dumps(numbers, ensure_ascii=False))
            file.write("\n]\n")
    partial.replace(path)
    return count

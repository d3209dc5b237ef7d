"""One run on several data sets: the table that says how far its scores hold in another laboratory."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

CAVEAT = (
    "Scores on images of the training laboratory say little about another laboratory: stain, camera and framing "
    "differ. Intervals are 95 % bootstrap intervals over images; they do not cover that difference."
)


@dataclass(frozen=True, kw_only=True)
class LaboratoryRow:
    """Scores of one run on one set of images.

    Attributes:
        dataset: data set.
        split: its part, or `all`.
        own: whether the run was trained on (other images of) this data set.
        images: number of images scored.
        hits: how many of them were right.
        accuracy, balanced_accuracy, macro_f1: shares.
        accuracy_low, accuracy_high: 95 % interval of the accuracy; None: none was made.
        outside_task: images of classes that the run does not know, left out.
    """

    dataset: str
    split: str
    own: bool
    images: int
    hits: int
    accuracy: float
    accuracy_low: float | None
    accuracy_high: float | None
    balanced_accuracy: float
    macro_f1: float
    outside_task: int


def laboratory_row(
    metrics: dict[str, Any], *, dataset: str, split: str, own: bool, outside_task: int
) -> LaboratoryRow:
    """A row from `Evaluation.to_json()`."""
    overall = metrics["overall"]
    low, high = metrics["intervals_95"].get("accuracy", (None, None))
    return LaboratoryRow(
        dataset=dataset,
        split=split,
        own=own,
        images=metrics["count"],
        hits=metrics["hits"],
        accuracy=overall["accuracy"],
        accuracy_low=low,
        accuracy_high=high,
        balanced_accuracy=overall["balanced_accuracy"],
        macro_f1=overall["macro_f1"],
        outside_task=outside_task,
    )


def write_laboratory_csv(rows: Sequence[LaboratoryRow], path: Path) -> None:
    """The rows as CSV, in one piece; unknown values are empty."""
    partial = path.with_name(path.name + ".part")
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=[f.name for f in fields(LaboratoryRow)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    partial.replace(path)


def laboratory_table(rows: Sequence[LaboratoryRow]) -> Any:
    """Rich table of the rows, the caveat below."""
    from rich.table import Table

    table = Table(title="across data sets", title_justify="left", caption=CAVEAT, caption_justify="left")
    for name in ("data set", "accuracy", "95 % interval", "balanced", "macro F1", "right", "outside task"):
        table.add_column(name)
    for row in rows:
        interval = "" if row.accuracy_low is None else f"{row.accuracy_low:.4f} to {row.accuracy_high:.4f}"
        table.add_row(
            f"{row.dataset} {row.split}" + (" (own)" if row.own else ""),
            f"{row.accuracy:.4f}",
            interval,
            f"{row.balanced_accuracy:.4f}",
            f"{row.macro_f1:.4f}",
            f"{row.hits} of {row.images}",
            str(row.outside_task),
        )
    return table

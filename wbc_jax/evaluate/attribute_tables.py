"""Attribute scores as text and as CSV, never without what the cell class alone would say."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from wbc_jax.evaluate.attribute_report import PUBLISHED, AttributeEvaluation

_OVERALL: tuple[tuple[str, str], ...] = (
    ("attribute_accuracy", "mean accuracy"),
    ("attribute_macro_f1", "mean macro F1"),
    ("subset_accuracy", "subset accuracy"),
    ("hamming_loss", "Hamming loss"),
    ("jaccard", "Jaccard"),
    ("attribute_precision", "mean precision"),
    ("attribute_recall", "mean recall"),
    ("attribute_specificity", "mean specificity"),
    ("attribute_f1", "mean F1"),
    ("attribute_auc", "mean AUC"),
    ("attribute_hard_auc", "mean hard AUC"),
)
_BASELINES = (("class_only", "class\nonly"), ("majority", "majority"))
_COLUMNS = ("support", "accuracy", "precision", "recall", "specificity", "f1", "macro_f1", "auc", "hard_auc")

LEGEND = (
    "subset accuracy (SAcc): every attribute of an image right. hard AUC: (recall + specificity) / 2. "
    "class only: the most frequent value among the training images of the true cell class, the image unseen. "
    "majority: the most frequent value in training. published: ResNet50 of WBCAtt on its official test of 3,099 "
    "images; other images are another measure."
)


def attribute_overall_table(evaluation: AttributeEvaluation, title: str) -> Any:
    """Rich table of the means over attributes and the scores of whole images, baselines beside them."""
    from rich.table import Table

    table = Table(
        title=f"{title}, attributes of {len(evaluation.truth)} images",
        title_justify="left",
        caption=f"{LEGEND}\n{distance_to_published(evaluation)}",
        caption_justify="left",
    )
    shown = [(key, label) for key, label in _BASELINES if key in evaluation.baselines]
    for heading in ("score", "value", "95 % interval", *(label for _, label in shown), "published"):
        table.add_column(heading)
    for name, label in _OVERALL:
        if name not in evaluation.overall:
            continue
        interval = evaluation.intervals.get(name)
        table.add_row(
            label,
            f"{evaluation.overall[name]:.4f}",
            f"{interval[0]:.4f} to {interval[1]:.4f}" if interval else "",
            *(_shown(evaluation.baselines[key].get(name)) for key, _ in shown),
            f"{PUBLISHED[name]:.4f}" if name in PUBLISHED else "",
        )
    return table


def distance_to_published(evaluation: AttributeEvaluation) -> str:
    """How far above or below WBCAtt's published baseline the mean accuracy is, in points."""
    points = 100 * (evaluation.overall["attribute_accuracy"] - PUBLISHED["attribute_accuracy"])
    side = "above" if points >= 0 else "below"
    return f"Mean accuracy is {abs(points):.2f} points {side} the published {PUBLISHED['attribute_accuracy']:.2%}."


def attribute_table(evaluation: AttributeEvaluation) -> Any:
    """Rich table of the scores of each attribute."""
    from rich.table import Table

    table = Table()
    table.add_column("attribute", min_width=11)  # the longest word: names break between words
    table.add_column("acc.")
    by_class = evaluation.baseline_accuracy.get("class_only")
    if by_class is not None:
        table.add_column("class\nonly")
    for heading in ("prec.", "recall", "spec.", "F1", "AUC"):
        table.add_column(heading)
    for name, row in evaluation.per_attribute.items():
        cells = [row["accuracy"], *([] if by_class is None else [by_class[name]])]
        cells += [row[key] for key in ("precision", "recall", "specificity", "f1", "auc")]
        table.add_row(name.replace("_", " "), *map(_shown, cells))
    return table


def write_attribute_csv(evaluation: AttributeEvaluation, path: Path) -> None:
    """A row an attribute, then their mean; unknown values are empty."""
    others = list(evaluation.baseline_accuracy)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["attribute", *_COLUMNS, *(f"{name}_accuracy" for name in others)])
        for name, row in evaluation.per_attribute.items():
            values = [row[column] for column in _COLUMNS[1:]]
            values += [evaluation.baseline_accuracy[other][name] for other in others]
            writer.writerow([name, int(row["support"] or 0), *map(_precise, values)])
        means = [evaluation.overall.get(f"attribute_{column}") for column in _COLUMNS[1:]]
        means += [evaluation.baselines[other]["attribute_accuracy"] for other in others]
        writer.writerow(["mean", len(evaluation.truth), *map(_precise, means)])


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _precise(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"

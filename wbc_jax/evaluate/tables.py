"""Evaluations as text: what the terminal shows, and the same as Markdown rows."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from wbc_jax.evaluate.report import Evaluation

SHOWN: tuple[tuple[str, str], ...] = (
    ("accuracy", "accuracy (OA)"),
    ("balanced_accuracy", "balanced accuracy (AR)"),
    ("average_precision_rate", "mean precision (AP)"),
    ("macro_f1", "macro F1"),
    ("af1_harmonic", "AF1, harmonic of AP and AR"),
    ("weighted_precision", "weighted precision"),
    ("weighted_recall", "weighted recall"),
    ("weighted_f1", "weighted F1"),
    ("macro_specificity", "macro specificity"),
    ("auc_macro", "AUC, one-vs-rest, macro"),
    ("auc_weighted", "AUC, one-vs-rest, weighted"),
    ("hard_auc_weighted", "AUC from hard labels, weighted"),
    ("mcc", "Matthews correlation"),
    ("ece", "expected calibration error"),
    ("loss", "negative log likelihood, nats"),
)


def overall_table(evaluation: Evaluation, title: str) -> Any:
    """Rich table of the overall scores with their 95 % intervals."""
    from rich.table import Table

    hits, total = int(evaluation.counts.trace()), int(evaluation.counts.sum())
    table = Table(
        "score", "value", "95 % interval", title=f"{title}: {hits} of {total} right", title_justify="left"
    )
    for name, label in SHOWN:
        if name not in evaluation.overall:
            continue
        low_high = evaluation.intervals.get(name)
        interval = f"{low_high[0]:.4f} to {low_high[1]:.4f}" if low_high else ""
        table.add_row(label, f"{evaluation.overall[name]:.4f}", interval)
    return table


def class_table(evaluation: Evaluation) -> Any:
    """Rich table of the scores of each class."""
    from rich.table import Table

    table = Table("class", "images", "recall", "precision", "specificity", "F1", "AUC")
    for name, row in evaluation.per_class.items():
        shown = [row[key] for key in ("recall", "precision", "specificity", "f1", "auc")]
        table.add_row(name, f"{row['support']:.0f}", *("–" if v is None else f"{v:.4f}" for v in shown))
    return table


def write_class_csv(evaluation: Evaluation, path: Path) -> None:
    """The class table as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        names = ["support", "recall", "specificity", "precision", "f1", "auc"]
        writer.writerow(["class", *names])
        for name, row in evaluation.per_class.items():
            writer.writerow([name, *("" if row[n] is None else f"{row[n]:.6f}" for n in names)])

"""The eleven confusion matrices of the attributes in one figure, with their accuracies beside the baselines."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np

from wbc_jax.catalog import ATTRIBUTES, Attribute
from wbc_jax.evaluate.attribute_report import AttributeEvaluation

_DPI = 130
_PLACES = (
    "NN01",
    "NN34",
    "5678",
    "9XSS",
)
"""N: nucleus shape, the one of six values, twice as large; a digit: that attribute; X: granularity; S: summary."""
_NUCLEUS, _LAST = 2, 10
_MARKS = (
    ("majority", "majority value", "D", "#999999"),
    ("class_only", "cell class alone", "s", "#E69F00"),
)
_OURS = "#0072B2"


def attribute_confusion_figure(evaluation: AttributeEvaluation, path: Path) -> Path:
    """Counts and row percentages of every attribute, as PNG; the counts beside it as CSV."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 14), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.12, w_pad=0.08)  # type: ignore[union-attr]
    axes = figure.subplot_mosaic([list(row) for row in _PLACES])
    for index, (attribute, counts) in enumerate(zip(ATTRIBUTES, evaluation.counts, strict=True)):
        place = {_NUCLEUS: "N", _LAST: "X"}.get(index, str(index))
        _matrix(axes[place], attribute, counts)
    _summary(axes["S"], evaluation)
    accuracy = evaluation.overall["attribute_accuracy"]
    figure.suptitle(
        f"{len(evaluation.truth)} images: mean accuracy {100 * accuracy:.2f} %, "
        f"all attributes right in {100 * evaluation.overall['subset_accuracy']:.2f} %",
        fontsize=14,
    )
    figure.savefig(path, dpi=_DPI)
    with path.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["attribute", "true", "predicted", "count"])
        for attribute, counts in zip(ATTRIBUTES, evaluation.counts, strict=True):
            for i, true in enumerate(attribute.values):
                writer.writerows(
                    [attribute.name, true, v, int(n)]
                    for v, n in zip(attribute.values, counts[i], strict=True)
                )
    return path


def _matrix(axes: Any, attribute: Attribute, counts: np.ndarray) -> None:
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (i, j), value in np.ndenumerate(counts):
        colour = "white" if share[i, j] > 0.5 else "black"
        text = f"{value}\n{100 * share[i, j]:.1f} %"
        axes.text(j, i, text, ha="center", va="center", color=colour, fontsize=9)
    names = [value.replace("-", "-\n", 1).replace(" ", "\n", 1) for value in attribute.values]
    axes.set_xticks(range(len(names)), names, fontsize=9)
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.set_xlabel("predicted", fontsize=9)
    axes.set_ylabel("true", fontsize=9)
    hits, total = int(np.trace(counts)), int(counts.sum())
    right = f"{100 * hits / total:.1f} %" if total else "not annotated"
    axes.set_title(f"{attribute.name.replace('_', ' ')}: {right}", fontsize=11)


def _summary(axes: Any, evaluation: AttributeEvaluation) -> None:
    """Accuracy of each attribute, and what could be said without looking at it."""
    names = list(evaluation.per_attribute)
    rows = np.arange(len(names))
    ours = [100 * (evaluation.per_attribute[name]["accuracy"] or 0.0) for name in names]
    lowest = min(ours)
    for key, label, marker, colour in _MARKS:
        if key in evaluation.baseline_accuracy:
            values = [100 * evaluation.baseline_accuracy[key][name] for name in names]
            lowest = min(lowest, *values)
            axes.plot(values, rows, marker, color=colour, markersize=7, label=label)
    axes.plot(ours, rows, "o", color=_OURS, markersize=8, label="this network")
    axes.set_yticks(rows, [name.replace("_", " ") for name in names], fontsize=9)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(max(0.0, lowest - 5), 101)
    axes.set_xlabel("accuracy, %")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(frameon=False, fontsize=9, loc="upper center", bbox_to_anchor=(0.5, 1.11), ncols=3)
    axes.spines[["top", "right"]].set_visible(False)

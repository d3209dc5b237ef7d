"""Figures of an evaluation as PNG, each with its numbers beside it as CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wbc_jax.evaluate.calibration import reliability_bins
from wbc_jax.evaluate.report import Evaluation

_DPI = 130


def draw_all(evaluation: Evaluation, directory: Path, name: str) -> list[Path]:
    """Confusion matrix, ROC curves and reliability diagram of one evaluation; returns the PNG paths."""
    directory.mkdir(parents=True, exist_ok=True)
    return [
        confusion_figure(evaluation, directory / f"confusion_{name}.png"),
        roc_figure(evaluation, directory / f"roc_{name}.png"),
        reliability_figure(evaluation, directory / f"reliability_{name}.png"),
    ]


def _axes(width: float, height: float, columns: int = 1) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(1, columns)


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def confusion_figure(evaluation: Evaluation, path: Path) -> Path:
    """Counts and row percentages in one matrix."""
    counts, names = evaluation.counts, evaluation.class_names
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 2.2 + 0.85 * len(names)
    figure, axes = _axes(side + 0.8, side)
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for i in range(len(names)):
        for j in range(len(names)):
            colour = "white" if share[i, j] > 0.5 else "black"
            text = f"{counts[i, j]}\n{100 * share[i, j]:.1f} %"
            axes.text(j, i, text, ha="center", va="center", color=colour, fontsize=9)
    axes.set_xticks(range(len(names)), names, rotation=35, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    hits, total = int(np.trace(counts)), int(counts.sum())
    axes.set_title(f"{hits} of {total} right ({100 * evaluation.overall['accuracy']:.2f} %)")
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    figure.savefig(path, dpi=_DPI)
    rows = [[name, *map(int, counts[i])] for i, name in enumerate(names)]
    _write_csv(path.with_suffix(".csv"), ["true\\predicted", *names], rows)
    return path


def roc_figure(evaluation: Evaluation, path: Path) -> Path:
    """One-vs-rest ROC curve of each class and their mean, areas in the legend."""
    from sklearn.metrics import roc_curve

    figure, axes = _axes(5.6, 5.0)
    rows: list[list[Any]] = []
    grid = np.linspace(0, 1, 201)
    curves = []
    for index, name in enumerate(evaluation.class_names):
        area = evaluation.per_class[name]["auc"]
        if area is None:
            continue
        false_rate, true_rate, _ = roc_curve(evaluation.labels == index, evaluation.probabilities[:, index])
        curves.append(np.interp(grid, false_rate, true_rate))
        axes.plot(false_rate, true_rate, label=f"{name} (AUC {area:.4f})", linewidth=1.4)
        rows += [[name, f"{x:.6f}", f"{y:.6f}"] for x, y in zip(false_rate, true_rate, strict=True)]
    if curves:
        mean = np.mean(curves, axis=0)
        label = f"macro (AUC {evaluation.overall['auc_macro']:.4f})"
        axes.plot(grid, mean, "k--", label=label, linewidth=1.2)
        rows += [["macro", f"{x:.6f}", f"{y:.6f}"] for x, y in zip(grid, mean, strict=True)]
    axes.plot([0, 1], [0, 1], color="0.8", linewidth=0.8)
    axes.set_xlabel("false positive rate")
    axes.set_ylabel("true positive rate")
    axes.set_xlim(-0.01, 1.0)
    axes.set_ylim(0, 1.01)
    axes.legend(loc="lower right", fontsize=8, frameon=False)
    figure.savefig(path, dpi=_DPI)
    _write_csv(path.with_suffix(".csv"), ["class", "false_positive_rate", "true_positive_rate"], rows)
    return path


def reliability_figure(evaluation: Evaluation, path: Path) -> Path:
    """Accuracy against confidence; on the diagonal confidence can be taken at its word."""
    edges, accuracy, confidence, count = reliability_bins(evaluation.probabilities, evaluation.labels)
    width = edges[0]
    figure, (left, right) = _axes(8.4, 3.8, columns=2)
    filled = count > 0
    left.plot([0, 1], [0, 1], color="0.7", linewidth=0.8)
    left.bar(edges[filled] - width / 2, accuracy[filled], width=width * 0.92, color="tab:blue", alpha=0.75)
    left.plot(confidence[filled], accuracy[filled], "o", color="black", markersize=3)
    left.set_xlabel("confidence")
    left.set_ylabel("accuracy")
    left.set_title(f"ECE {evaluation.overall['ece']:.4f}")
    right.bar(edges - width / 2, count, width=width * 0.92, color="0.5")
    right.set_yscale("symlog", linthresh=1)
    right.set_xlabel("confidence")
    right.set_ylabel("images")
    figure.savefig(path, dpi=_DPI)
    rows = [[f"{v:.6f}" for v in row] for row in zip(edges, accuracy, confidence, count, strict=True)]
    _write_csv(path.with_suffix(".csv"), ["upper_edge", "accuracy", "mean_confidence", "count"], rows)
    return path


def training_figure(history: list[dict[str, Any]], path: Path) -> Path:
    """Loss and accuracy over epochs, training and validation, the best validation score marked."""
    figure, (left, right) = _axes(9.6, 3.8, columns=2)
    for axes, score in ((left, "loss"), (right, "accuracy")):
        for prefix, label in (("epoch", "training"), ("val", "validation")):
            points = [(r["epoch"], r[f"{prefix}.{score}"]) for r in history if f"{prefix}.{score}" in r]
            if points:
                axes.plot(*zip(*points, strict=True), marker=".", label=label)
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axes.set_ylabel(score)
        axes.grid(alpha=0.25)
        axes.legend(frameon=False)
    validated = [r for r in history if "val.accuracy" in r]
    if validated:
        best = max(validated, key=lambda r: r["val.accuracy"])
        right.plot(best["epoch"], best["val.accuracy"], "r*", markersize=11)
        right.set_title(f"best validation accuracy {best['val.accuracy']:.4f} in epoch {best['epoch']:g}")
    figure.savefig(path, dpi=_DPI)
    return path

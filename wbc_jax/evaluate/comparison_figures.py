"""Figures that compare runs: curves in one plot, confusion matrices and ROC curves in a row, lines of scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wbc_jax.evaluate.report import Evaluation

_DPI = 130
_PER_ROW = 4


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One line: (epoch, percent) points."""

    label: str
    points: Sequence[tuple[float, float]]
    dashed: bool = False


def curves_figure(curves: Sequence[Curve], path: Path, *, mark_best: bool) -> Path:
    """Accuracy over epochs of several runs in one plot.

    Args:
        curves: at least one.
        path: PNG to write.
        mark_best: put a star and its value at the highest point of each solid curve.
    """
    figure, panels = _figure(8.6, 4.4)
    axes = panels[0, 0]
    colours = _colours()
    for index, curve in enumerate(curves):
        x, y = zip(*curve.points, strict=True)
        colour = colours[index % len(colours)]
        style = "--" if curve.dashed else "-"
        axes.plot(x, y, style, marker=".", markersize=4, linewidth=1.3, color=colour, label=curve.label)
        if mark_best and not curve.dashed:
            best = int(np.argmax(y))
            axes.plot(x[best], y[best], "*", markersize=10, color=colour)
            axes.annotate(
                f"{y[best]:.2f}",
                (x[best], y[best]),
                xytext=(-4, 5),
                textcoords="offset points",
                ha="right",
                fontsize=7,
            )
    axes.set_xlabel("epoch")
    axes.set_ylabel("accuracy, percent")
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    figure.savefig(path, dpi=_DPI)
    return path


def confusion_row_figure(shown: Sequence[tuple[str, Evaluation]], path: Path) -> Path:
    """Confusion matrices side by side, counts and percent of the true class, one colour scale.

    Args:
        shown: (title, evaluation) of each matrix, at least one.
        path: PNG to write.
    """
    columns, rows = min(_PER_ROW, len(shown)), -(-len(shown) // _PER_ROW)
    side = 1.5 + 0.62 * max(len(e.class_names) for _, e in shown)
    figure, panels = _figure(columns * side + 0.7, rows * (side + 0.1), rows, columns)
    image = None
    for axes, (title, evaluation) in zip(panels.flat, shown, strict=False):
        image = _matrix(axes, evaluation)
        axes.set_title(f"{title}\n{_hits(evaluation)}", fontsize=9)
    for axes in panels.flat[len(shown) :]:
        axes.axis("off")
    figure.colorbar(image, ax=panels, label="share of the true class", shrink=0.7)
    figure.savefig(path, dpi=_DPI)
    return path


def roc_row_figure(
    shown: Sequence[tuple[str, Evaluation]], path: Path, *, with_confusion: bool = False
) -> Path:
    """ROC curves of each class against the rest and their mean, a panel each, areas in the legends.

    Args:
        shown: (title, evaluation) of each panel, at least one.
        path: PNG to write.
        with_confusion: put the confusion matrix beside each panel.
    """
    width = 2 if with_confusion else 1
    columns, rows = min(_PER_ROW, len(shown)) * width, -(-len(shown) // _PER_ROW)
    figure, panels = _figure(columns * 4.1, rows * 4.1, rows, columns)
    cells = list(panels.flat)
    for index, (title, evaluation) in enumerate(shown):
        axes = cells[index * width]
        _curves_of_classes(axes, evaluation)
        axes.set_title(title, fontsize=9)
        if with_confusion:
            _matrix(cells[index * width + 1], evaluation)
            cells[index * width + 1].set_title(_hits(evaluation), fontsize=9)
    for axes in cells[len(shown) * width :]:
        axes.axis("off")
    figure.savefig(path, dpi=_DPI)
    return path


def lines_figure(
    labels: Sequence[str],
    ours: Mapping[str, Sequence[float | None]],
    published: Mapping[str, Sequence[float | None]],
    path: Path,
) -> Path:
    """Scores across networks: a colour a score, ours solid, published dashed.

    Args:
        labels: networks, along the x axis.
        ours, published: score -> percent of each network, None where there is none.
        path: PNG to write.
    """
    figure, panels = _figure(2.6 + 1.3 * len(labels), 4.2)
    axes = panels[0, 0]
    places = np.arange(len(labels))
    for colour, score in zip(_colours(), ours, strict=False):
        for values, style, whose in ((ours[score], "o-", "ours"), (published[score], "s--", "paper")):
            known = [(x, v) for x, v in zip(places, values, strict=True) if v is not None]
            if known:
                x, y = zip(*known, strict=True)
                label = f"{score}, {whose}"
                axes.plot(x, y, style, color=colour, markersize=4, linewidth=1.3, label=label)
    axes.set_xticks(places, labels)
    axes.set_xlim(-0.3, len(labels) - 0.7)
    axes.set_ylabel("percent")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    figure.savefig(path, dpi=_DPI)
    return path


def _figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Any, Any]:
    """Figure and its axes, an array `(rows, columns)`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _colours() -> list[Any]:
    """Okabe and Ito's colours, told apart by colour-blind readers."""
    return ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C8C00"]


def _hits(evaluation: Evaluation) -> str:
    hits, total = int(np.trace(evaluation.counts)), int(evaluation.counts.sum())
    return f"{hits} of {total} right ({100 * evaluation.overall['accuracy']:.2f} %)"


def _matrix(axes: Any, evaluation: Evaluation) -> Any:
    counts, names = evaluation.counts, evaluation.class_names
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for i in range(len(names)):
        for j in range(len(names)):
            colour = "white" if share[i, j] > 0.5 else "black"
            text = f"{counts[i, j]}\n{100 * share[i, j]:.1f} %"
            axes.text(j, i, text, ha="center", va="center", color=colour, fontsize=7)
    axes.set_xticks(range(len(names)), names, rotation=35, ha="right", fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_xlabel("predicted", fontsize=8)
    axes.set_ylabel("true", fontsize=8)
    return image


def _curves_of_classes(axes: Any, evaluation: Evaluation) -> None:
    from sklearn.metrics import roc_curve

    grid, curves = np.linspace(0, 1, 201), []
    for colour, (index, name) in zip(_colours() * 2, enumerate(evaluation.class_names), strict=False):
        area = evaluation.per_class[name]["auc"]
        if area is None:
            continue
        x, y, _ = roc_curve(evaluation.labels == index, evaluation.probabilities[:, index])
        curves.append(np.interp(grid, x, y))
        axes.plot(x, y, color=colour, linewidth=1.3, label=f"{name} (AUC {area:.3f})")
    if curves:
        label = f"macro (AUC {evaluation.overall['auc_macro']:.3f})"
        axes.plot(grid, np.mean(curves, axis=0), "k--", linewidth=1.1, label=label)
    axes.plot([0, 1], [0, 1], color="0.8", linewidth=0.8)
    axes.set_xlabel("false positive rate", fontsize=8)
    axes.set_ylabel("true positive rate", fontsize=8)
    axes.set_xlim(-0.01, 1.0)
    axes.set_ylim(0, 1.01)
    axes.legend(loc="lower right", fontsize=7, frameon=False)

"""One cell on one page: where the network looks, what it calls the cell, and the morphology that it sees."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wbc_jax.explain.overlay import overlay

_FOR, _AGAINST, _PLAIN, _CHOSEN = "#0072B2", "#D55E00", "#BBBBBB", "#0072B2"
"""Blue and vermilion of Okabe and Ito's palette, which colour-blind readers tell apart."""

_LEAST_REACH = 0.1
"""Contributions below this, in logits, look as small as they are."""


@dataclass(frozen=True, kw_only=True)
class AttributeReading:
    """What the network says about one attribute of one cell.

    Attributes:
        name: name of the attribute.
        value: its most probable value.
        confidence: probability of that value.
        contribution: what it adds to the logit of the explained class; None: the network decides without it.
    """

    name: str
    value: str
    confidence: float
    contribution: float | None


def cell_figure(
    image: np.ndarray,
    heat: np.ndarray,
    class_probabilities: dict[str, float],
    attributes: list[AttributeReading],
    path: Path,
    *,
    title: str,
    explained: str,
    endpoint: str,
) -> Path:
    """Image, Grad-CAM overlay, class probabilities and attributes, written as PNG.

    Args:
        image: uint8 `(H, W, 3)`.
        heat: float `(H, W)` in [0, 1].
        class_probabilities: class name -> probability, all K classes.
        attributes: the readings, in the order to be shown.
        path: PNG to write.
        title: line above everything.
        explained: class that the heat map and the contributions are about.
        endpoint: layer that the map comes from.
    """
    from matplotlib.figure import Figure

    contributing = any(reading.contribution is not None for reading in attributes)
    figure: Any = Figure(figsize=(14.6 if contributing else 11.6, 6), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(6, 8.6 if contributing else 5.6), wspace=0.04)
    left.suptitle(title, x=0.02, ha="left", fontsize=12, fontweight="bold")
    above, below = left.subfigures(2, 1, height_ratios=(1.35, 1))
    _pictures(above, image, heat, explained, endpoint)
    _classes(below.subplots(), class_probabilities, explained)
    columns = right.subplots(1, 2 if contributing else 1, sharey=True, squeeze=False)[0]
    _confidences(columns[0], attributes)
    if contributing:
        _contributions(columns[1], attributes, explained)
    figure.savefig(path, dpi=130)
    return path


def _pictures(figure: Any, image: np.ndarray, heat: np.ndarray, explained: str, endpoint: str) -> None:
    from matplotlib.cm import ScalarMappable

    left, right = figure.subplots(1, 2)
    left.imshow(image)
    left.set_title("as the network sees it", fontsize=9)
    right.imshow(overlay(image, heat))
    right.set_title(f"evidence for {_words(explained)}", fontsize=9)
    for axes in (left, right):
        axes.axis("off")
    bar = figure.colorbar(ScalarMappable(cmap="jet"), ax=[left, right], shrink=0.8, pad=0.01, aspect=18)
    bar.set_label(f"Grad-CAM at {endpoint}", fontsize=7)
    bar.ax.tick_params(labelsize=7)


def _classes(axes: Any, probabilities: dict[str, float], explained: str) -> None:
    names = list(probabilities)
    shares = [100 * probabilities[name] for name in names]
    colours = [_CHOSEN if name == explained else _PLAIN for name in names]
    bars = axes.barh(range(len(names)), shares, color=colours, height=0.7)
    axes.bar_label(bars, [_percent(share) for share in shares], padding=4, fontsize=9)
    axes.set_yticks(range(len(names)), [_words(name) for name in names], fontsize=9)
    axes.set_xlim(0, 118)  # room for the label of a full bar
    _bare(axes, len(names))
    axes.set_title("class", fontsize=10, loc="left", fontweight="bold")


def _confidences(axes: Any, attributes: list[AttributeReading]) -> None:
    shares = [100 * reading.confidence for reading in attributes]
    axes.barh(range(len(attributes)), 100, color="#F0F0F0", height=0.78)
    axes.barh(range(len(attributes)), shares, color="#B9D7EA", height=0.78)
    for row, (reading, share) in enumerate(zip(attributes, shares, strict=True)):
        axes.text(2, row, _words(reading.value), va="center", fontsize=10, fontweight="bold")
        axes.text(103, row, _percent(share), va="center", fontsize=9)
    axes.set_yticks(range(len(attributes)), [_words(reading.name) for reading in attributes], fontsize=10)
    axes.set_xlim(0, 122)
    _bare(axes, len(attributes))
    axes.set_title("morphology and confidence", fontsize=10, loc="left", fontweight="bold")


def _contributions(axes: Any, attributes: list[AttributeReading], explained: str) -> None:
    values = [reading.contribution or 0.0 for reading in attributes]
    colours = [_FOR if value >= 0 else _AGAINST for value in values]
    bars = axes.barh(range(len(values)), values, color=colours, height=0.6)
    largest = max(map(abs, values))
    decimals = 2 if largest >= _LEAST_REACH else 3
    axes.bar_label(bars, [signed(value, decimals) for value in values], padding=4, fontsize=9)
    reach = 1.35 * max(largest, _LEAST_REACH)
    axes.set_xlim(-reach, reach)
    axes.axvline(0, color="0.4", linewidth=0.8)
    _bare(axes, len(values))
    axes.set_title(f"speaks for or against {_words(explained)}", fontsize=10, loc="left", fontweight="bold")
    axes.set_xlabel("fall of the class logit when the attribute is unknown", fontsize=8)


def _bare(axes: Any, rows: int) -> None:
    axes.set_ylim(rows - 0.4, -0.6)
    axes.set_xticks([])
    axes.tick_params(axis="y", length=0)
    axes.spines[:].set_visible(False)


def _percent(share: float) -> str:
    """Never 100 % for less than certainty as printed: 99.97 is `99.9 %`."""
    return "100 %" if share >= 99.995 else f"{min(share, 99.9):.1f} %"


def signed(value: float, decimals: int) -> str:
    """`+0.31`, or `0` for what rounds to nothing."""
    if round(value, decimals) == 0:
        return "0"
    return f"{value:+.{decimals}f}".replace("-", "\N{MINUS SIGN}")


def _words(name: str) -> str:
    return name.replace("_", " ")

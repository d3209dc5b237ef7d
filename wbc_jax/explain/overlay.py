"""Heat maps over images, and the figure that shows them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

_IMAGE_INCHES = 2.3
_TITLE_INCHES = 0.5


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Half image, half heat in the JET colours, uint8 `(H, W, 3)`.

    Args:
        image: uint8 `(H, W, 3)`.
        heat: float `(H, W)` in [0, 1].
    """
    from matplotlib import colormaps

    colours = np.asarray(colormaps["jet"]((255 * heat).astype(np.uint8)))[..., :3]  # (H, W, 3)
    mixed = image.astype(np.float64) / 255 + colours
    return (255 * mixed / max(mixed.max(), 1e-7)).astype(np.uint8)


def explanation_figure(
    images: Sequence[np.ndarray],
    heats: Sequence[np.ndarray],
    titles: Sequence[str],
    path: Path,
    *,
    endpoint: str,
) -> Path:
    """One row an image: the image, the overlay, and a colour bar for all; written as PNG.

    Args:
        images: uint8 `(H, W, 3)` each.
        heats: float `(H, W)` in [0, 1] each.
        titles: one or two lines above each image.
        path: PNG to write.
        endpoint: layer that the maps come from, named in the figure.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

    per_row = min(4, len(images))
    rows = -(-len(images) // per_row)
    figure = Figure(
        figsize=(per_row * 2 * _IMAGE_INCHES + 0.9, rows * (_IMAGE_INCHES + _TITLE_INCHES)),
        layout="constrained",
    )
    axes = figure.subplots(rows, 2 * per_row, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for i, (image, heat, title) in enumerate(zip(images, heats, titles, strict=True)):
        left, right = axes[i // per_row, 2 * (i % per_row)], axes[i // per_row, 2 * (i % per_row) + 1]
        left.imshow(image)
        left.set_title(title, fontsize=8, loc="left")
        right.imshow(overlay(image, heat))
    bar = figure.colorbar(ScalarMappable(cmap="jet"), ax=axes, shrink=0.8, pad=0.01)
    bar.set_label(f"evidence for the class\nGrad-CAM at {endpoint}", fontsize=7)
    bar.ax.tick_params(labelsize=7)
    figure.savefig(path, dpi=130)
    return path

#!/usr/bin/env python3
"""The README's picture, from a finished quickstart run: `python benchmarks/picture.py RUN_DIR OUT.png`.

Left the embedded images, in the middle Grad-CAM at the output of the attention, right the confusion matrix of the
run's test set.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from wbc_jax.commands.run import load_run
from wbc_jax.data.framing import frame_image
from wbc_jax.data.synthetic.gallery import contact_sheet
from wbc_jax.data.synthetic.morphology import SYNTHETIC_CLASSES
from wbc_jax.data.synthetic.render import render_cell
from wbc_jax.explain.grad_cam import grad_cam
from wbc_jax.explain.overlay import overlay
from wbc_jax.train.augment import center


def heat_sheet(run_dir: Path, columns: int = 3, size_px: int = 96) -> np.ndarray:
    """Overlays of unseen embedded cells, one row a class, uint8 `(rows, columns, 3)`."""
    run = load_run(run_dir)
    data = run.config.data
    cells = [render_cell(910_000 + i, c, size_px).image for c in SYNTHETIC_CLASSES for i in range(columns)]
    framed = jnp.asarray(np.stack([frame_image(cell, data.store_size_px, "squash") for cell in cells]))
    images = center(framed, data.image_size_px)
    heats = jax.jit(lambda v, x: grad_cam(run.model, v, x, "attended"))(run.variables, images)
    heats = np.asarray(jax.image.resize(heats, (len(cells), size_px, size_px), "bilinear")).clip(0, 1)
    tiles = np.stack([overlay(cell, heat) for cell, heat in zip(cells, heats, strict=True)])
    tiles = np.pad(tiles, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=255)
    rows = tiles.reshape(len(SYNTHETIC_CLASSES), columns, *tiles.shape[1:])
    return np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0)


def main(run_dir: Path, out: Path) -> None:
    """Draws the picture."""
    table = list(csv.reader((run_dir / "figures" / "confusion_test.csv").read_text().splitlines()))
    names, counts = table[0][1:], np.array([[int(v) for v in row[1:]] for row in table[1:]])
    figure = Figure(figsize=(13.5, 4.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=(6, 3.1, 5))
    left.imshow(contact_sheet(columns=6))
    left.set_title("embedded data set: drawn, not photographed", fontsize=10)
    left.set_yticks([48 + 98 * i for i in range(len(SYNTHETIC_CLASSES))], SYNTHETIC_CLASSES, fontsize=9)
    left.set_xticks([])
    middle.imshow(heat_sheet(run_dir))
    middle.set_title("where the network looks", fontsize=10)
    middle.axis("off")
    right.imshow(counts / counts.sum(axis=1, keepdims=True), cmap="Blues", vmin=0, vmax=1)
    for (i, j), count in np.ndenumerate(counts):
        colour = "white" if count > counts[i].sum() / 2 else "black"
        right.text(j, i, str(count), ha="center", va="center", color=colour, fontsize=9)
    right.set_xticks(range(len(names)), names, rotation=30, ha="right", fontsize=9)
    right.set_yticks(range(len(names)), names, fontsize=9)
    right.set_title(f"test set: {np.trace(counts)} of {counts.sum()} right", fontsize=10)
    right.set_xlabel("predicted")
    figure.savefig(out, dpi=90)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

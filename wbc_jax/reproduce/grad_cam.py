"""Where networks look: test cells beside their Grad-CAM maps, one column a layer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wbc_jax.commands.run import LoadedRun, load_run
from wbc_jax.data.experiment import Samples, load_experiment
from wbc_jax.explain.attributes import uniform_prior
from wbc_jax.explain.overlay import overlay
from wbc_jax.explain.step import make_explain_step
from wbc_jax.models.compiler import jit
from wbc_jax.reproduce.cell_drawings import bare
from wbc_jax.reproduce.data_drawings import picture, write_csv
from wbc_jax.reproduce.outcome import Context, Drawing
from wbc_jax.reproduce.run_drawings import row_title
from wbc_jax.reproduce.score_tables import left_out_notes

_CELLS = 3
"""Test cells shown of each run, of different classes where there are enough."""
LAYERS = {
    "attended": "output of the attention",
    "trunk/stage4": "last convolution, plain",
    "attention/se_fused": "SE of the fused features",
    "attention/se_ge": "SE + GE",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class _Cell:
    """A cell: `image` uint8 `(H, W, 3)`, a heat map `(H, W)` a layer, title, and its cells of the table."""

    title: str
    image: np.ndarray
    heats: list[np.ndarray]
    row: list[str]


def draw_grad_cam(context: Context) -> Drawing:
    """A line a test cell: the image, then an overlay a layer, for the predicted class; one colour bar."""
    cells: list[_Cell] = []
    for outcome in context.finished():
        cells += _explained(
            load_run(outcome.runs[0].directory), context.exhibit.endpoints, row_title(outcome)
        )
    if not cells:
        return Drawing(markdown="\n\n".join(["No run to draw.", *left_out_notes(context.outcomes)]))
    _figure(cells, [LAYERS.get(name, name) for name in context.exhibit.endpoints], context.path(".png"))
    header = ["row", "image", "true", "predicted", "confidence"]
    write_csv(context.path(".csv"), header, [cell.row for cell in cells])
    note = "Grad-CAM of the predicted class; each map is scaled to its own range."
    return picture(context, [note, *left_out_notes(context.outcomes)])


def _explained(run: LoadedRun, endpoints: tuple[str, ...], title: str) -> list[_Cell]:
    import jax

    samples = load_experiment(run.config.data).test
    chosen = _one_of_each_class(samples)
    images = np.stack([samples.store.images[samples.rows[i]] for i in chosen])
    found: list[Any] = []
    for endpoint in endpoints:
        step = make_explain_step(
            run.model,
            run.predict_step(),
            endpoint,
            None,
            image_size_px=run.config.data.image_size_px,
            prior=uniform_prior(),
        )
        found.append(jax.tree.map(np.asarray, jit(step)(run.variables, images)))
    names = run.task.class_names
    cells = []
    for row, index in enumerate(chosen):
        probabilities = found[0].prediction.probabilities[row]
        true, best = names[samples.labels[index]], names[int(probabilities.argmax())]
        confidence = float(probabilities.max())
        cells.append(
            _Cell(
                title=f"{title}\n{true}\ncalled {best}\n({confidence:.0%})",
                image=found[0].seen[row],
                heats=[one.heat[row] for one in found],
                row=[title, samples.ids()[index], true, best, f"{confidence:.6f}"],
            )
        )
    return cells


def _one_of_each_class(samples: Samples) -> list[int]:
    """Indices of the first test cell of each of the first classes."""
    firsts = [int(np.flatnonzero(samples.labels == label)[0]) for label in np.unique(samples.labels)]
    return firsts[:_CELLS]


def _figure(cells: list[_Cell], layers: list[str], path: Path) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.9 * (1 + len(layers)) + 2.2, 1.75 * len(cells) + 0.4), layout="constrained")
    panels = figure.subplots(len(cells), 1 + len(layers), squeeze=False)
    for axes_row, cell in zip(panels, cells, strict=True):
        shown = [cell.image, *(overlay(cell.image, heat) for heat in cell.heats)]
        for axes, image in zip(axes_row, shown, strict=True):
            axes.imshow(image)
            bare(axes)
        axes_row[0].set_ylabel(cell.title, fontsize=8, rotation=0, ha="right", va="center")
    for axes, title in zip(panels[0], ["cell", *layers], strict=True):
        axes.set_title(title, fontsize=9)
    bar = figure.colorbar(ScalarMappable(cmap="jet"), ax=panels, shrink=0.7, pad=0.02)
    bar.set_label("evidence for the predicted class", fontsize=8)
    figure.savefig(path, dpi=130, bbox_inches="tight")  # a long label reaches beyond the panels

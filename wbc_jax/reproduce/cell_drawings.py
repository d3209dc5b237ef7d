"""Exhibits that show cells: samples of each class and data set, two of them mixed."""

from __future__ import annotations

from typing import Any

import numpy as np

from wbc_jax.catalog import CELL_CLASSES
from wbc_jax.data.decode import read_image
from wbc_jax.data.experiment import open_prepared
from wbc_jax.data.framing import frame_image
from wbc_jax.data.packed import PackedStore
from wbc_jax.data.registry import DATASETS, find_raw
from wbc_jax.reproduce.data_drawings import absences, data_config, picture, present
from wbc_jax.reproduce.outcome import Context, Drawing

_SAMPLE_SIZE_PX = 160
_MIXUP_SHARE = 0.7
"""Weight of the first image in the example; in training it is drawn from Beta(0.2, 0.2)."""


def draw_samples(context: Context) -> Drawing:
    """One cell of each class and data set; an empty place where a data set lacks the class."""
    from matplotlib.figure import Figure

    stores = {name: open_prepared(data_config(context, name)) for name in present(context)}
    if not stores:
        return Drawing(markdown="\n\n".join(absences(context)))
    classes = [c for c in CELL_CLASSES if any(_first_of(store, c) is not None for store in stores.values())]
    figure = Figure(figsize=(1.5 * len(classes) + 0.9, 1.62 * len(stores) + 0.3), layout="constrained")
    panels = figure.subplots(len(stores), len(classes), squeeze=False)
    for row, (name, store) in enumerate(stores.items()):
        for axes, cell_class in zip(panels[row], classes, strict=True):
            bare(axes)
            index = _first_of(store, cell_class)
            if index is None:
                axes.text(0.5, 0.5, "–", ha="center", va="center", transform=axes.transAxes, color="0.5")
            else:
                axes.imshow(_image(context, name, store, index))
            if row == 0:
                axes.set_title(cell_class.replace("_", "\n"), fontsize=8)
        panels[row][0].set_ylabel(name, fontsize=9)
    figure.savefig(context.path(".png"), dpi=130)
    return picture(context, absences(context))


def _image(context: Context, dataset: str, store: PackedStore, row: int) -> np.ndarray:
    """A cell at the figure's size, from the original file where there is one, uint8 `(S, S, 3)`."""
    if DATASETS[dataset].generated or "#" in store.samples.ids[row]:
        return store.images[row]
    file = find_raw(dataset, context.planner.places.raw_dir) / store.samples.ids[row]
    return frame_image(read_image(file), _SAMPLE_SIZE_PX, DATASETS[dataset].framing)


def bare(axes: Any) -> None:
    """A panel without frame and ticks."""
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(False)


def _first_of(store: PackedStore, cell_class: str) -> int | None:
    if cell_class not in store.samples.cell_classes:
        return None
    index = store.samples.cell_classes.index(cell_class)
    rows = np.flatnonzero(store.samples.cell_class == index)
    return int(rows[len(rows) // 2]) if len(rows) else None


def draw_mixup(context: Context) -> Drawing:
    """Two cells of different classes and their mixture."""
    from matplotlib.figure import Figure

    dataset = (present(context) or [context.budget.stand_in or "synthetic_smear"])[0]
    store = open_prepared(data_config(context, dataset))
    names = ("neutrophil", "lymphocyte")
    rows = [_first_of(store, name) for name in names]
    if None in rows:
        return Drawing(markdown=f"{dataset} has no {' or no '.join(names)}.")
    a, b = (_image(context, dataset, store, r).astype(np.float64) for r in rows if r is not None)
    mixed = (_MIXUP_SHARE * a + (1 - _MIXUP_SHARE) * b).round().astype(np.uint8)
    share = f"{_MIXUP_SHARE:g} {names[0]} + {1 - _MIXUP_SHARE:g} {names[1]}"
    figure = Figure(figsize=(7.2, 2.8), layout="constrained")
    images = (a.astype(np.uint8), b.astype(np.uint8), mixed)
    for axes, image, title in zip(figure.subplots(1, 3), images, (*names, share), strict=True):
        axes.imshow(image)
        axes.set_title(title, fontsize=9)
        bare(axes)
    figure.savefig(context.path(".png"), dpi=130)
    note = f"Cells of {dataset}. In training λ is drawn anew for each batch from Beta(α, α)."
    return picture(context, [note, *absences(context)])

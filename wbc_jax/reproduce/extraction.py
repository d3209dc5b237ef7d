"""How a cell is cut out of a smear image, stage by stage: stain, markers, distance, watershed, crop.

The order is that of SCAM (Methods): stains are separated, a marker is made for each nucleus, the watershed grows the
markers to the cells' borders, and the cell is cut out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from wbc_jax.data.decode import read_image
from wbc_jax.data.experiment import open_prepared
from wbc_jax.data.nucleus import ANALYSIS_SIDE_PX, nucleus_box, nucleus_mask
from wbc_jax.data.registry import find_raw
from wbc_jax.reproduce.cell_drawings import bare
from wbc_jax.reproduce.data_drawings import absences, data_config, picture, present
from wbc_jax.reproduce.outcome import Context, Drawing

_REACH = 0.8
"""How far cytoplasm may lie from the nucleus, in radii of the nucleus."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Stages:
    """One image on its way; H and W are those of the analysed copy.

    Attributes:
        image: uint8 `(H, W, 3)`.
        stain: float `(H, W)`, how much more green than blue is absorbed.
        nuclei: bool `(H, W)`, the marker: the largest nucleus.
        distance: float `(H, W)`, px to the border of the nucleus.
        cell: bool `(H, W)`, where the watershed ended.
        crop: uint8 `(S, S, 3)`, the cell.
    """

    image: np.ndarray
    stain: np.ndarray
    nuclei: np.ndarray
    distance: np.ndarray
    cell: np.ndarray
    crop: np.ndarray


def cut_out(image: np.ndarray) -> Stages | None:
    """All stages for a uint8 `(H, W, 3)` smear image; None where no nucleus is found."""
    from scipy import ndimage
    from skimage.filters import sobel
    from skimage.segmentation import watershed

    box = nucleus_box(image)
    if box is None:
        return None
    scale = ANALYSIS_SIDE_PX / max(image.shape[:2])
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    small = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))
    light = (small.astype(np.float64) + 8.0) / 263.0
    bodies, _ = ndimage.label(nucleus_mask(small))  # pyright: ignore[reportGeneralTypeIssues]
    nuclei = bodies == 1 + np.bincount(bodies.ravel())[1:].argmax()  # platelets take the same stain
    distance = np.asarray(ndimage.distance_transform_edt(nuclei))
    far = np.asarray(ndimage.distance_transform_edt(~nuclei)) > _REACH * np.sqrt(nuclei.sum() / np.pi)
    # Red cells absorb green as well: the border of the cytoplasm shows best where all channels change.
    border = sobel(ndimage.gaussian_filter(light.mean(axis=-1), 1.5))
    grown = watershed(border, markers=np.where(far, 2, np.where(nuclei, 1, 0)))
    x0, y0, x1, y1 = box
    return Stages(
        image=small,
        stain=np.log(light[..., 2]) - np.log(light[..., 1]),
        nuclei=nuclei,
        distance=distance,
        cell=np.asarray(ndimage.binary_fill_holes(grown == 1)),
        crop=image[y0:y1, x0:x1],
    )


def draw_extraction(context: Context) -> Drawing:
    """Six stages of one smear image of the first data set that is here."""
    for dataset in present(context):
        store = open_prepared(data_config(context, dataset))
        folder = find_raw(dataset, context.planner.places.raw_dir)
        for name in store.samples.ids:
            stages = cut_out(read_image(folder / name.partition("#")[0]))
            if stages is not None:
                _figure(context, stages)
                return picture(context, [f"Image {name} of {dataset}.", *absences(context)])
    return Drawing(markdown="\n\n".join(absences(context)) or "No nucleus was found in any image.")


def _figure(context: Context, stages: Stages) -> None:
    from matplotlib.figure import Figure
    from skimage.segmentation import mark_boundaries

    outlined = mark_boundaries(stages.image, stages.cell.astype(int), color=(1.0, 0.9, 0.0), mode="thick")
    shown = (
        ("smear image", stages.image, None),
        ("stain of nuclei", stages.stain, "magma"),
        ("marker: thresholded, opened, filled, largest", stages.nuclei, "gray"),
        ("distance to the border", stages.distance, "viridis"),
        ("watershed from the marker", outlined, None),
        ("cell, cut out", stages.crop, None),
    )
    figure = Figure(figsize=(9.0, 5.4), layout="constrained")
    for axes, (title, image, colours) in zip(figure.subplots(2, 3).flat, shown, strict=True):
        axes.imshow(image, cmap=colours)
        axes.set_title(title, fontsize=9)
        bare(axes)
    figure.savefig(context.path(".png"), dpi=130)

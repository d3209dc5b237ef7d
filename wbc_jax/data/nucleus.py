"""Where the white cell is in a smear image: its nucleus is the largest body that takes up the basic dye."""

from __future__ import annotations

import numpy as np
from PIL import Image

ANALYSIS_SIDE_PX = 320
"""Longer side of the copy in which nuclei are looked for."""
MIN_AREA = 0.002
"""Smallest share of the image that passes for a nucleus."""
SIDE_FACTOR = 2.4
"""Side of the square, in extents of the nucleus: leaves room for the cytoplasm of large cells."""


def nucleus_box(image: np.ndarray, side_factor: float = SIDE_FACTOR) -> tuple[int, int, int, int] | None:
    """A square around the largest stained nucleus.

    Args:
        image: uint8 `(H, W, 3)`, RGB.
        side_factor: side of the square over the longer side of the nucleus.

    Returns:
        `(x0, y0, x1, y1)` inside the image, x1 - x0 = y1 - y0, or None when no nucleus is found.
    """
    height, width = image.shape[:2]
    scale = min(1.0, ANALYSIS_SIDE_PX / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = np.asarray(
        Image.fromarray(image).resize(size, Image.Resampling.BOX, reducing_gap=3.0)
    )  # (h, w, 3)
    found = _largest_nucleus(small)
    if found is None:
        return None
    y0, x0, y1, x1 = (value / scale for value in found)
    side = min(round(side_factor * max(y1 - y0, x1 - x0)), height, width)
    left = min(max(round((x0 + x1 - side) / 2), 0), width - side)
    top = min(max(round((y0 + y1 - side) / 2), 0), height - side)
    return left, top, left + side, top + side


def _largest_nucleus(image: np.ndarray) -> tuple[int, int, int, int] | None:
    """Bounding box `(y0, x0, y1, x1)` in px of the copy, or None."""
    from skimage import measure

    mask = nucleus_mask(image)
    regions = measure.regionprops(measure.label(mask))
    largest = max(regions, key=lambda region: region.area, default=None)
    if largest is None or largest.area < MIN_AREA * mask.size:
        return None
    return largest.bbox


def nucleus_mask(image: np.ndarray) -> np.ndarray:
    """Pixels of nuclei, bool `(H, W)`, by colour deconvolution, Otsu's threshold, filling and opening."""
    from scipy import ndimage
    from skimage import color, filters, morphology

    stain = color.rgb2hed(image)[..., 0]
    if stain.max() - stain.min() < 1e-6:
        return np.zeros(stain.shape, bool)
    stain = filters.gaussian(stain, 1.0)
    mask = ndimage.binary_fill_holes(stain > filters.threshold_otsu(stain))
    return np.asarray(ndimage.binary_opening(mask, morphology.disk(2)))

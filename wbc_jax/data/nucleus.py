"""Where the white cell is in a smear image: its nucleus is the largest body that takes up the basic dyes.

Colour deconvolution with Ruifrok's haematoxylin vector and Otsu's threshold, the usual first attempt, finds the
nucleus in 288 of 289 BCCD smears, but in few of LISC, whose red cells are bluish, and none of BCCD's rotated copies,
whose corners are black. What sets nuclei apart under all these stains is that they absorb green more than blue:
haemoglobin does the reverse, grey and black do neither.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

ANALYSIS_SIDE_PX = 320
"""Longer side of the copy in which nuclei are looked for."""
MIN_AREA = 0.001
"""Smallest share of the image that passes for a nucleus."""
MIN_CONTRAST = 0.25
"""Least stain of the strongest pixels above the median, natural units of optical density."""
SIDE_FACTOR = 2.4
"""Side of the square, in extents of the nucleus: leaves room for the cytoplasm of large cells."""

_TOP_SHARE = 0.004
"""Share of the image whose mean stain stands for that of nuclei: about the smallest lymphocyte of a whole smear."""
_JOIN_PX = 4
"""Lobes of a nucleus that are less than twice this apart, in px of the copy, are one body."""
_DENSITY_OFFSET = 8.0
"""Added to 8-bit values before the logarithm, so that noise in dark pixels does not count."""


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
    small = Image.fromarray(image).resize(size, Image.Resampling.BOX, reducing_gap=3.0)
    found = _largest(nucleus_mask(np.asarray(small)))
    if found is None:
        return None
    (y0, y1), (x0, x1) = ((part.start / scale, part.stop / scale) for part in found)
    side = min(max(1, round(side_factor * max(y1 - y0, x1 - x0))), height, width)
    left = min(max(round((x0 + x1 - side) / 2), 0), width - side)
    top = min(max(round((y0 + y1 - side) / 2), 0), height - side)
    return left, top, left + side, top + side


def nucleus_mask(image: np.ndarray) -> np.ndarray:
    """Pixels of nuclei and other bodies of their stain, bool `(H, W)`, of a uint8 `(H, W, 3)` image.

    The threshold lies half-way between the median, which is background or red cells, and the strongest pixels:
    Otsu's would part red cells from the background where nuclei cover less than a hundredth of the image.
    """
    from scipy import ndimage

    density = -np.log((image[..., 1:].astype(np.float32) + _DENSITY_OFFSET) / (255.0 + _DENSITY_OFFSET))
    stain = ndimage.gaussian_filter(density[..., 0] - density[..., 1], 1.0)  # (H, W)
    count = max(1, round(_TOP_SHARE * stain.size))
    strongest = float(np.partition(stain, -count, axis=None)[-count:].mean())
    usual = float(np.median(stain))
    if strongest - usual < MIN_CONTRAST:
        return np.zeros(stain.shape, bool)
    mask = np.pad(stain > (usual + strongest) / 2, _JOIN_PX)  # closing would eat the border
    mask = ndimage.binary_closing(ndimage.binary_opening(mask, _disk(2)), _disk(_JOIN_PX))
    return np.asarray(ndimage.binary_fill_holes(mask))[_JOIN_PX:-_JOIN_PX, _JOIN_PX:-_JOIN_PX]


def _largest(mask: np.ndarray) -> tuple[slice, slice] | None:
    """Rows and columns of the largest body, or None when all are too small."""
    from scipy import ndimage

    bodies = np.zeros(mask.shape, np.int32)
    ndimage.label(mask, output=bodies)
    areas = np.bincount(bodies.ravel())[1:]
    if not len(areas) or areas.max() < MIN_AREA * mask.size:
        return None
    rows, columns = ndimage.find_objects(bodies)[int(areas.argmax())]
    return rows, columns


def _disk(radius: int) -> np.ndarray:
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    return x * x + y * y <= radius * radius

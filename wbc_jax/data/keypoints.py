"""What a microscope field looks like at its keypoints, and whether two images show one field.

ORB keypoints (Rublee et al. 2011) bear turns and shifts, RANSAC (Fischler and Bolles 1981) the rest of an affine map;
mirrored copies are found by describing each image a second time, mirrored. Corners beside the black that a turned
image leaves are no keypoints. Keypoints and
matches are scikit-image's; nothing here reads files.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage.color import rgb2gray
from skimage.feature import ORB, match_descriptors

LONG_SIDE_PX = 160
"""Longer side of the images that are described."""
KEYPOINTS = 150
BITS = 256
SAME_FIELD_INLIERS = 10
"""Keypoints that must agree on one affine map. Of 1,911 likely pairs among BCCD's copies and originals, those of
different fields reached 5 of up to 150, and those of one field 15 or more."""

_FAST_THRESHOLD = 0.03
_BLACK_BELOW = 40
"""Brightest channel of the black around a turned image; no stain is so dark in all three."""
_BLACK_MARGIN_PX = 4
_MATCH_RATIO = 0.85
_RESIDUAL_PX = 3.0
_TRIALS = 200
_SMALLEST_TRIANGLE_PX2 = 20.0
_STRETCH = (0.7, 1.4)
"""Singular values of an affine map between copies of one field."""


@dataclass(frozen=True, kw_only=True, eq=False)
class View:
    """Keypoints of one image, as it is or mirrored.

    Attributes:
        places: float32 `(n, 2)`, row and column, px of the reduced image.
        descriptors: bool `(n, 256)`.
    """

    places: np.ndarray
    descriptors: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class Field:
    """One image, described as it is and mirrored left to right; mirrored otherwise it is a turn of one of both."""

    plain: View
    mirrored: View


def describe(rgb: np.ndarray) -> Field:
    """Keypoints of an image whose longer side is `LONG_SIDE_PX`.

    Args:
        rgb: uint8 `(H, W, 3)`.
    """
    black = ndimage.binary_opening(rgb.max(axis=-1) < _BLACK_BELOW, iterations=2)
    usable = np.logical_not(ndimage.binary_dilation(black, iterations=_BLACK_MARGIN_PX))
    grey = rgb2gray(rgb)
    return Field(plain=_view(grey, usable), mirrored=_view(grey[:, ::-1].copy(), usable[:, ::-1]))


def agreeing_keypoints(one: Field, other: Field) -> int:
    """The largest number of keypoints that one affine map, with or without mirroring, takes from one to the other."""
    return max(_agreeing(one.plain, view) for view in (other.plain, other.mirrored))


def _view(grey: np.ndarray, usable: np.ndarray) -> View:
    orb = ORB(n_keypoints=KEYPOINTS, n_scales=1, fast_threshold=_FAST_THRESHOLD)
    try:
        orb.detect_and_extract(grey)
    except RuntimeError:  # scikit-image's word for an image without any corner
        return View(places=np.zeros((0, 2), np.float32), descriptors=np.zeros((0, BITS), bool))
    places = np.asarray(orb.keypoints, np.float32)  # (n, 2)
    rows, columns = np.rint(places).astype(int).T
    kept = usable[rows, columns]
    return View(places=places[kept], descriptors=np.asarray(orb.descriptors, bool)[kept])


def _agreeing(one: View, other: View) -> int:
    if min(len(one.places), len(other.places)) < SAME_FIELD_INLIERS:
        return 0
    pairs = match_descriptors(one.descriptors, other.descriptors, max_ratio=_MATCH_RATIO, cross_check=True)
    if len(pairs) < SAME_FIELD_INLIERS:
        return 0
    # All trials of RANSAC at once: tried one by one they took ten times as long as everything else here.
    from_places = np.column_stack([one.places[pairs[:, 0]], np.ones(len(pairs))])  # (n, 3)
    to_places = other.places[pairs[:, 1]].astype(np.float64)  # (n, 2)
    triples = _triples(len(pairs))
    corners = from_places[triples]  # (trials, 3, 3)
    usable = np.abs(np.linalg.det(corners)) > _SMALLEST_TRIANGLE_PX2
    maps = np.linalg.solve(corners[usable], to_places[triples[usable]])  # (trials, 3, 2)
    distances = np.linalg.norm(from_places @ maps - to_places, axis=-1)  # (trials, n)
    inliers = np.sum(distances < _RESIDUAL_PX, axis=-1) * _plausible(maps[:, :2])
    return int(np.max(inliers, initial=0))


def _triples(count: int) -> np.ndarray:
    """Three different numbers below `count` for each trial, int `(trials, 3)`, always the same."""
    return np.random.default_rng(0).random((_TRIALS, count)).argpartition(3, axis=1)[:, :3]


def _plausible(linear: np.ndarray) -> np.ndarray:
    """Whether maps `(trials, 2, 2)` stretch no direction more than copies of a field are stretched."""
    squares = np.sum(linear**2, axis=(1, 2))  # s1^2 + s2^2
    product = np.linalg.det(linear)  # s1 s2, below 0 for a mirror
    spread = np.sqrt(np.maximum(squares**2 - 4.0 * product**2, 0.0))
    smallest, largest = np.maximum((squares - spread) / 2, 0.0), (squares + spread) / 2
    return (product > 0) & (smallest >= _STRETCH[0] ** 2) & (largest <= _STRETCH[1] ** 2)

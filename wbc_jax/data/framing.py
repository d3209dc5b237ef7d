"""Images of any shape to squares of one size, by resampling that averages over what it leaves out."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from PIL import Image

from wbc_jax.data.nucleus import nucleus_box

Framing = Literal["squash", "pad", "crop", "nucleus"]
FRAMINGS: tuple[Framing, ...] = get_args(Framing)

_REDUCING_GAP = 3.0
"""Large images are first box-averaged down to this many times the target, which is quicker and hardly differs."""


def frame_image(image: np.ndarray, size_px: int, framing: Framing) -> np.ndarray:
    """Make an image square.

    Args:
        image: uint8 `(H, W, 3)`, RGB.
        size_px: side of the result, px.
        framing: "squash" fits both sides, "pad" keeps the shape and fills with the border's median colour, "crop"
            cuts the largest central square, "nucleus" cuts a square around the largest nucleus found by its
            stain, or the central one when none is found.

    Returns:
        uint8 `(size_px, size_px, 3)`. An image of that size is returned as it is, except by "nucleus".

    Raises:
        ValueError: for another type or shape, size below 1 or unknown framing.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"uint8 (H, W, 3) expected, got {image.dtype} {image.shape}")
    if size_px < 1:
        raise ValueError(f"size_px must be at least 1, got {size_px}")
    height, width = image.shape[:2]
    match framing:
        case "squash":
            return _resample(image, (0, 0, width, height), (size_px, size_px))
        case "pad":
            return _pad(image, size_px)
        case "crop":
            return _resample(image, _central_square(height, width), (size_px, size_px))
        case "nucleus":
            box = nucleus_box(image) or _central_square(height, width)
            return _resample(image, box, (size_px, size_px))
    raise ValueError(f"no framing {framing!r}; one of {', '.join(FRAMINGS)}")


def _resample(image: np.ndarray, box: tuple[int, int, int, int], size: tuple[int, int]) -> np.ndarray:
    """The part `(x0, y0, x1, y1)` at `(width, height)` px, uint8 `(height, width, 3)`."""
    x0, y0, x1, y1 = box
    part = image[y0:y1, x0:x1]
    if part.shape[1::-1] == size:
        return np.array(part)
    pixels = Image.fromarray(np.ascontiguousarray(part))
    return np.array(pixels.resize(size, Image.Resampling.LANCZOS, reducing_gap=_REDUCING_GAP))


def _central_square(height: int, width: int) -> tuple[int, int, int, int]:
    side = min(height, width)
    x0, y0 = (width - side) // 2, (height - side) // 2
    return x0, y0, x0 + side, y0 + side


def _pad(image: np.ndarray, size_px: int) -> np.ndarray:
    height, width = image.shape[:2]
    scale = size_px / max(height, width)
    new_height, new_width = (min(size_px, max(1, round(side * scale))) for side in (height, width))
    scaled = _resample(image, (0, 0, width, height), (new_width, new_height))
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])  # (2W + 2H, 3)
    square = np.empty((size_px, size_px, 3), np.uint8)
    square[:] = np.median(border, axis=0).round().astype(np.uint8)
    y0, x0 = (size_px - new_height) // 2, (size_px - new_width) // 2
    square[y0 : y0 + new_height, x0 : x0 + new_width] = scaled
    return square

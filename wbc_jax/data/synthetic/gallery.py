"""Contact sheets of rendered cells."""

from __future__ import annotations

import numpy as np

from wbc_jax.data.synthetic.morphology import SYNTHETIC_CLASSES
from wbc_jax.data.synthetic.render import render_cell


def contact_sheet(seed: int = 0, columns: int = 8, size_px: int = 96, gap_px: int = 2) -> np.ndarray:
    """One row per class in the order of `SYNTHETIC_CLASSES`, white gaps between pictures.

    Returns:
        uint8 `(5 * (size_px + gap_px) - gap_px, columns * (size_px + gap_px) - gap_px, 3)`, RGB.
    """
    step = size_px + gap_px
    sheet = np.full((len(SYNTHETIC_CLASSES) * step - gap_px, columns * step - gap_px, 3), 255, np.uint8)
    for row, cell_class in enumerate(SYNTHETIC_CLASSES):
        for column in range(columns):
            image = render_cell((seed * 1000 + row) * columns + column, cell_class, size_px).image
            sheet[row * step : row * step + size_px, column * step : column * step + size_px] = image
    return sheet

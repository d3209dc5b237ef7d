"""One white cell, from its numbers to optical density and masks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wbc_jax.data.synthetic.geometry import Canvas, blend, coverage, outline_distance
from wbc_jax.data.synthetic.noise import Texture, smooth_noise, stream
from wbc_jax.data.synthetic.spec import CellSpec, Granules, nucleus_distance
from wbc_jax.data.synthetic.stain import Stain

_EDGE_UM = 0.35
_WARP_UM = 0.12
_FULLNESS = {"small": 1.0, "round": 0.78, "coarse": 1.3}
"""Above 1 a granule is as dark over most of its width as in its middle."""
_VEIL = {"small": 0.06, "round": 0.27, "coarse": 0.0}
"""Share of the granules' colour between them: granules out of focus and too fine to see."""


@dataclass(frozen=True)
class DrawnCell:
    """Where a cell lies on the canvas: window (rows, columns) and masks, bool, of the window's shape."""

    rows: slice
    columns: slice
    cell_mask: np.ndarray
    nucleus_mask: np.ndarray


def _granule_sites(rng: np.random.Generator, granules: Granules, reach_um: float) -> np.ndarray:
    """(3, N) float32: x, y and radius on a jittered triangular lattice, thinned to the filled share."""
    pitch = granules.pitch_um
    half = int(np.ceil(reach_um / pitch)) + 1
    steps = np.arange(-half, half + 1, dtype=np.float64)
    row, column = np.meshgrid(steps * (3.0**0.5 / 2.0), steps, indexing="ij")
    column = column + 0.5 * (np.arange(len(steps)) % 2)[:, None]
    jitter = rng.uniform(-0.3, 0.3, size=(2, *row.shape))
    x, y = (column + jitter[0]) * pitch, (row + jitter[1]) * pitch
    radius = granules.radius_um * np.exp(rng.normal(0.0, granules.spread, size=x.shape))
    kept = rng.random(x.shape) < granules.filled
    return np.stack([x[kept], y[kept], radius[kept]]).astype(np.float32)


def _splat(x: np.ndarray, y: np.ndarray, um_per_px: float, sites: np.ndarray) -> np.ndarray:
    """Beads seen through: the share of the longest chord at each pixel, (H, W) float32, 0 between beads."""
    height, width = len(y), len(x)
    if sites.shape[1] == 0:
        return np.zeros((height, width), np.float32)
    pixel = np.float32(um_per_px)
    centre_x, centre_y, radius = sites
    # A bead smaller than a pixel is drawn as wide as the pixel and fainter in proportion to its area.
    drawn2 = radius * radius + np.float32(0.36) * pixel * pixel
    half = int(np.ceil(float(np.sqrt(drawn2.max())) / um_per_px)) + 1
    column = np.floor((centre_x - x[0]) / pixel).astype(np.int64)
    row = np.floor((centre_y - y[0]) / pixel).astype(np.int64)
    near = (column > -half) & (column < width + half) & (row > -half) & (row < height + half)
    column, row, centre_x, centre_y = column[near], row[near], centre_x[near], centre_y[near]
    drawn2, radius = drawn2[near], radius[near]
    offset = np.arange(-half, half + 2)
    columns, rows = column[:, None] + offset, row[:, None] + offset  # (N, k)
    gap_x = (columns * pixel + x[0]).astype(np.float32) - centre_x[:, None]
    gap_y = (rows * pixel + y[0]).astype(np.float32) - centre_y[:, None]
    gap2 = gap_y[:, :, None] ** 2 + gap_x[:, None, :] ** 2  # (N, k, k)
    chord = np.sqrt(np.clip(1.0 - gap2 / drawn2[:, None, None], 0.0, 1.0))
    chord *= (radius * radius / drawn2)[:, None, None]
    margin = 2 * half + 2
    padded = np.zeros((height + 2 * margin, width + 2 * margin), np.float32)
    flat = (rows + margin)[:, :, None] * padded.shape[1] + (columns + margin)[:, None, :]
    np.maximum.at(padded.reshape(-1), flat.reshape(-1), chord.reshape(-1))
    return padded[margin : margin + height, margin : margin + width]


def _chromatin(spec: CellSpec, stain: Stain, x: np.ndarray, y: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Optical density (3, h, w) of the nucleus: dense clumps, or a pale network of strands."""
    looseness = np.float32(spec.nucleus.looseness)
    reach = spec.outline.reach_um + 1.0
    clumps = smooth_noise(stream(spec.texture_seed, Texture.CLUMPS), x, y, pitch_um=0.50, extent_um=reach)
    fine = smooth_noise(
        stream(spec.texture_seed, Texture.FINE_CHROMATIN), x, y, pitch_um=0.28, extent_um=reach
    )
    dense = 1.0 + 0.20 * np.tanh(1.5 * clumps) + 0.07 * fine
    strands = 1.0 - np.minimum(np.abs(clumps + 0.4 * fine), 1.6)
    loose = 1.0 + 0.28 * strands + 0.06 * fine
    texture = dense + looseness * (loose - dense)
    # The membrane is seen edge-on at the border.
    texture = texture + 0.10 * np.exp(-0.5 * ((depth - 0.3) / 0.25) ** 2)
    colour = stain.colour("chromatin dense") * (1.0 - looseness) + stain.colour("chromatin loose") * looseness
    return colour[:, None, None] * texture[None]


def _cytoplasm(spec: CellSpec, stain: Stain, x: np.ndarray, y: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Optical density (3, h, w) of the cytoplasm, without granules: even, or like ground glass."""
    reach = spec.outline.reach_um + 1.0
    frosting = np.float32(spec.frosting)
    broad = smooth_noise(
        stream(spec.texture_seed, Texture.BROAD_CYTOPLASM), x, y, pitch_um=1.4, extent_um=reach
    )
    glass = smooth_noise(
        stream(spec.texture_seed, Texture.GROUND_GLASS), x, y, pitch_um=0.30, extent_um=reach
    )
    texture = 1.0 + 0.10 * broad + 0.30 * frosting * glass
    # Basophilic cytoplasm is deepest at the border.
    texture = texture + 0.18 * np.exp(-np.clip(depth, 0.0, None) / np.float32(0.8))
    return stain.colour(spec.cytoplasm_colour)[:, None, None] * np.clip(texture, 0.2, None)[None]


def draw_white_cell(canvas: Canvas, spec: CellSpec, x_um: float, y_um: float, stain: Stain) -> DrawnCell:
    """Draw a cell with its centre at a point of the canvas, over whatever is there.

    Returns:
        The window that was drawn to, with the cell's and the nucleus's masks in it.
    """
    rows, columns = canvas.window(x_um, y_um, spec.outline.reach_um + 0.5)
    x, y = canvas.x[columns] - np.float32(x_um), canvas.y[rows] - np.float32(y_um)
    od = canvas.od[:, rows, columns]
    if od.size == 0:
        empty = np.zeros(od.shape[1:], bool)
        return DrawnCell(rows, columns, empty, empty)
    grid_x, grid_y = x[None, :], y[:, None]
    reach = spec.outline.reach_um + 1.0
    cell = outline_distance(grid_x, grid_y, spec.outline)
    warp_x = smooth_noise(stream(spec.texture_seed, Texture.WARP_X), x, y, pitch_um=0.9, extent_um=reach)
    warp_y = smooth_noise(stream(spec.texture_seed, Texture.WARP_Y), x, y, pitch_um=0.9, extent_um=reach)
    nucleus = nucleus_distance(grid_x + _WARP_UM * warp_x, grid_y + _WARP_UM * warp_y, spec.nucleus, cell)
    soft = max(canvas.um_per_px, _EDGE_UM)

    inside = coverage(cell, soft)
    blend(od, inside, _cytoplasm(spec, stain, x, y, -cell))
    granules = None
    if spec.granules.kind != "nil":
        sites = _granule_sites(stream(spec.texture_seed, Texture.GRANULES), spec.granules, reach)
        granules = _splat(x, y, canvas.um_per_px, sites)
        kept = coverage(cell + np.float32(0.5 * spec.granules.radius_um), soft)
        granules = (
            np.minimum(_FULLNESS[spec.granules.kind] * granules + _VEIL[spec.granules.kind], 1.0) * kept
        )
        blend(od, granules, stain.colour(spec.granules.colour))
    blend(od, coverage(nucleus, soft), _chromatin(spec, stain, x, y, -nucleus))
    if granules is not None and spec.granules.over_nucleus:
        blend(od, 0.85 * granules, stain.colour(spec.granules.colour))
    for place_x, place_y, radius in spec.vacuoles:
        gap = np.sqrt((grid_x - place_x) ** 2 + (grid_y - place_y) ** 2) - np.float32(radius)
        blend(od, 0.9 * coverage(gap, 0.35) * inside, 0.15 * stain.colour(spec.cytoplasm_colour))
    return DrawnCell(rows, columns, cell < 0.0, nucleus < 0.0)

"""What lies around the white cells: red cells, platelets, specks of precipitated stain."""

from __future__ import annotations

import math

import numpy as np

from wbc_jax.data.synthetic.geometry import Canvas, Outline, blend, coverage, outline_distance
from wbc_jax.data.synthetic.noise import smooth_noise
from wbc_jax.data.synthetic.stain import Stain

RED_CELL_RADIUS_UM = 3.6


def draw_red_cell(
    canvas: Canvas, x_um: float, y_um: float, colour: np.ndarray, rng: np.random.Generator
) -> None:
    """A biconcave disc: dense rim, pale centre, no nucleus. Densities add up where discs overlap."""
    radius = RED_CELL_RADIUS_UM * float(np.exp(rng.normal(0.0, 0.07)))
    harmonics = tuple(
        (order, abs(float(rng.normal(0.0, size))), float(rng.uniform(0.0, 2.0 * math.pi)))
        for order, size in ((2, 0.05), (3, 0.025), (4, 0.012))
    )
    pallor = float(np.clip(rng.normal(0.68, 0.22), 0.0, 0.95))
    pallor_width = float(rng.uniform(0.38, 0.58))
    density = float(np.exp(rng.normal(0.0, 0.10)))
    outline = Outline(radius_um=radius, harmonics=harmonics)
    rows, columns = canvas.window(x_um, y_um, outline.reach_um + 0.4)
    x = canvas.x[columns][None, :] - np.float32(x_um)
    y = canvas.y[rows][:, None] - np.float32(y_um)
    if x.size == 0 or y.size == 0:
        return
    distance = outline_distance(x, y, outline)
    depth = distance / np.float32(radius) + 1.0  # 0 in the centre, 1 at the rim
    thickness = 1.0 - np.float32(pallor) * np.exp(
        -((np.clip(depth, 0.0, None) / np.float32(pallor_width)) ** 3)
    )
    thickness *= 1.0 - 0.25 * np.clip(depth, 0.0, 1.0) ** 6
    amount = np.float32(density) * thickness * coverage(distance, max(canvas.um_per_px, 0.3))
    canvas.od[:, rows, columns] += amount[None] * colour[:, None, None]


def draw_platelet(canvas: Canvas, x_um: float, y_um: float, stain: Stain, rng: np.random.Generator) -> None:
    """A fragment of 2 to 3 micrometres: pale blue with purple granules in the middle."""
    radius = float(rng.uniform(0.8, 1.4))
    harmonics = tuple(
        (order, abs(float(rng.normal(0.0, 0.10))), float(rng.uniform(0.0, 2.0 * math.pi)))
        for order in (2, 3, 5)
    )
    outline = Outline(radius_um=radius, harmonics=harmonics)
    rows, columns = canvas.window(x_um, y_um, outline.reach_um + 0.4)
    x = canvas.x[columns] - np.float32(x_um)
    y = canvas.y[rows] - np.float32(y_um)
    grain = smooth_noise(rng, x, y, pitch_um=0.25, extent_um=3.0)
    if grain.size == 0:
        return
    distance = outline_distance(x[None, :], y[:, None], outline)
    od = canvas.od[:, rows, columns]
    soft = max(canvas.um_per_px, 0.35)
    blend(od, 0.9 * coverage(distance, soft), stain.colour("platelet"))
    middle = coverage(distance + np.float32(0.35 * radius), 0.8)
    blend(od, middle * np.clip(0.6 + 0.5 * grain, 0.0, 1.0), stain.colour("platelet granule"))


def draw_speck(canvas: Canvas, x_um: float, y_um: float, stain: Stain, rng: np.random.Generator) -> None:
    """Precipitated stain: a few dark dots close together."""
    for _ in range(int(rng.integers(1, 5))):
        radius = float(rng.uniform(0.12, 0.4))
        dot_x, dot_y = x_um + float(rng.normal(0.0, 0.6)), y_um + float(rng.normal(0.0, 0.6))
        rows, columns = canvas.window(dot_x, dot_y, radius + canvas.um_per_px)
        x = canvas.x[columns][None, :] - np.float32(dot_x)
        y = canvas.y[rows][:, None] - np.float32(dot_y)
        inside = coverage(np.sqrt(x * x + y * y) - np.float32(radius), max(canvas.um_per_px, 0.2))
        blend(canvas.od[:, rows, columns], inside, stain.colour("precipitate"))

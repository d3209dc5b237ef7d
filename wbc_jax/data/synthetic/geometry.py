"""Signed distances of the shapes that cells are made of, in micrometres, negative inside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

_TABLE_SIZE = 256
_ANGLE = np.linspace(-np.pi, np.pi, _TABLE_SIZE + 1)


class Capsule(NamedTuple):
    """A thick line whose thickness may taper: two end points and the radius at each, in micrometres."""

    x0: float
    y0: float
    x1: float
    y1: float
    radius0: float
    radius1: float


@dataclass(frozen=True, kw_only=True)
class Outline:
    """A closed curve around the origin: radius times 1 + the sum of amplitude * cos(order * angle + phase).

    `blebs` are bumps (angle, half width in radians, height as a share of the radius).
    """

    radius_um: float
    harmonics: tuple[tuple[int, float, float], ...] = ()
    blebs: tuple[tuple[float, float, float], ...] = ()

    @property
    def roughness(self) -> float:
        """Root mean square deviation of the harmonics from the circle, as a share of the radius."""
        return float(np.sqrt(sum(amplitude**2 for _, amplitude, _ in self.harmonics) / 2.0))

    @property
    def reach_um(self) -> float:
        """A radius that nothing of the outline exceeds."""
        waves = sum(abs(amplitude) for _, amplitude, _ in self.harmonics)
        bumps = max((height for _, _, height in self.blebs), default=0.0)
        return self.radius_um * (1.0 + waves + bumps)

    def radius_table(self) -> tuple[np.ndarray, np.ndarray]:
        """The curve's radius, and the derivative by the angle, at even angles from -pi to pi; float64."""
        radius = np.ones_like(_ANGLE)
        if self.harmonics:
            order, amplitude, phase = np.array(self.harmonics).T[:, :, None]
            radius += (amplitude * np.cos(order * _ANGLE + phase)).sum(axis=0)
        for centre, half_width, height in self.blebs:
            offset = (_ANGLE - centre + np.pi) % (2.0 * np.pi) - np.pi
            radius += height * np.exp(-0.5 * (offset / half_width) ** 2)
        radius *= self.radius_um
        slope = np.empty_like(radius)
        slope[1:-1] = (radius[2:] - radius[:-2]) * (_TABLE_SIZE / (4.0 * np.pi))
        slope[0] = slope[-1] = (radius[1] - radius[-2]) * (_TABLE_SIZE / (4.0 * np.pi))
        return radius, slope


def outline_distance(x: np.ndarray, y: np.ndarray, outline: Outline) -> np.ndarray:
    """First-order signed distance to the outline for coordinates that broadcast together; float32."""
    radius, slope = outline.radius_table()
    # At a radius r a curve r(angle) is tilted by r'/r: dividing by the slant turns radial gap into distance.
    slant = np.sqrt(1.0 + (slope / radius) ** 2)
    at = (np.arctan2(y, x) + np.float32(np.pi)) * np.float32(_TABLE_SIZE / (2.0 * np.pi))
    low = np.minimum(at.astype(np.int32), _TABLE_SIZE - 1)
    share = at - low
    table = radius.astype(np.float32)
    curve = table[low] + share * (table[low + 1] - table[low])
    return (np.sqrt(x * x + y * y) - curve) / slant.astype(np.float32)[low]


def capsule_distance(x: np.ndarray, y: np.ndarray, capsules: tuple[Capsule, ...]) -> np.ndarray:
    """Distance to each capsule, (K, H, W) float32, for x and y that broadcast to (H, W)."""
    table = np.asarray(capsules, np.float32).T[:, :, None, None]  # (6, K, 1, 1)
    x0, y0, x1, y1, radius0, radius1 = table
    run_x, run_y = x1 - x0, y1 - y0
    length2 = np.maximum(run_x * run_x + run_y * run_y, np.float32(1e-6))
    gap_x, gap_y = x[None] - x0, y[None] - y0
    along = np.clip((gap_x * run_x + gap_y * run_y) / length2, 0.0, 1.0)
    off_x, off_y = gap_x - run_x * along, gap_y - run_y * along
    return np.sqrt(off_x * off_x + off_y * off_y) - radius0 - (radius1 - radius0) * along


def smooth_union(distances: np.ndarray, blend_um: float) -> np.ndarray:
    """Union over the first axis whose creases are rounded over about `blend_um`: (K, H, W) -> (H, W)."""
    nearest = distances.min(axis=0)
    if blend_um <= 0.0 or len(distances) == 1:
        return nearest
    share = np.exp((nearest - distances) / np.float32(blend_um)).sum(axis=0)
    return nearest - np.float32(blend_um) * np.log(share)


def coverage(distance: np.ndarray, soft_um: float) -> np.ndarray:
    """Share of a pixel that lies inside: 1 inside, 0 outside, a ramp `soft_um` wide around the edge."""
    return np.clip(0.5 - distance / np.float32(soft_um), 0.0, 1.0)


@dataclass(frozen=True)
class Canvas:
    """Optical density under the microscope: `od` float32 (3, H, W), pixel centres `x`, `y` in micrometres."""

    od: np.ndarray
    x: np.ndarray
    y: np.ndarray
    um_per_px: float

    @classmethod
    def blank(cls, height_px: int, width_px: int, um_per_px: float) -> Canvas:
        """A clear field whose centre is the origin."""
        x = ((np.arange(width_px) - (width_px - 1) / 2.0) * um_per_px).astype(np.float32)
        y = ((np.arange(height_px) - (height_px - 1) / 2.0) * um_per_px).astype(np.float32)
        return cls(np.zeros((3, height_px, width_px), np.float32), x, y, um_per_px)

    def window(self, x_um: float, y_um: float, reach_um: float) -> tuple[slice, slice]:
        """Rows and columns within `reach_um` of a point; empty slices where that lies outside the field."""
        bounds = []
        for axis, centre in ((self.y, y_um), (self.x, x_um)):
            low, high = np.searchsorted(axis, (centre - reach_um, centre + reach_um))
            bounds.append(slice(int(low), int(high)))
        return bounds[0], bounds[1]


def blend(od: np.ndarray, alpha: np.ndarray, colour: np.ndarray) -> None:
    """Cover `od` (3, h, w) in place with `colour`, (3,) or (3, h, w), to the share `alpha` (h, w)."""
    if colour.ndim == 1:
        colour = colour[:, None, None]
    od += alpha[None] * (colour - od)

"""From optical density to the picture: lamp, lens and sensor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Microscope:
    """How one picture is taken.

    Attributes:
        white: red, green, blue of the clear background, 0 … 1.
        gradient: relative change of light from the centre to the right and to the lower border.
        vignetting: relative loss of light in the corners.
        blur_um: standard deviation of the defocus.
        noise: standard deviation of the sensor's noise at white, in grey levels of 255.
    """

    white: tuple[float, float, float]
    gradient: tuple[float, float]
    vignetting: float
    blur_um: float
    noise: float


_WHITES = np.array([(1.00, 0.91, 0.80), (0.96, 0.95, 0.95), (0.90, 0.93, 0.90), (0.97, 0.90, 0.92)])
"""Warm lamp, balanced, greenish, pinkish: backgrounds seen on real slides."""


def sample_microscope(rng: np.random.Generator) -> Microscope:
    """A picture from one of several microscopes, each set up a little differently."""
    shares = rng.dirichlet((0.7, 0.7, 0.7, 0.7))
    white = np.clip(shares @ _WHITES + rng.normal(0.0, 0.012, size=3) + rng.normal(-0.01, 0.03), 0.6, 1.0)
    return Microscope(
        white=(float(white[0]), float(white[1]), float(white[2])),
        gradient=(float(rng.normal(0.0, 0.03)), float(rng.normal(0.0, 0.03))),
        vignetting=float(rng.uniform(0.0, 0.08)),
        blur_um=float(rng.uniform(0.09, 0.26)),
        noise=float(rng.uniform(1.0, 4.0)),
    )


def _blur_matrix(length: int, sigma_px: float) -> np.ndarray:
    """Gaussian averaging along one axis as a matrix (length, length) whose rows sum to 1."""
    place = np.arange(length, dtype=np.float32)
    weights = np.exp(-0.5 * ((place[None, :] - place[:, None]) / np.float32(sigma_px)) ** 2)
    return weights / weights.sum(axis=1, keepdims=True)


def expose(od: np.ndarray, um_per_px: float, microscope: Microscope, rng: np.random.Generator) -> np.ndarray:
    """The picture, uint8 (H, W, 3), of a field of optical density `od`, float32 (3, H, W)."""
    height, width = od.shape[1:]
    light = np.exp(-od)
    sigma_px = microscope.blur_um / um_per_px
    if sigma_px > 0.2:
        light = _blur_matrix(height, sigma_px) @ light @ _blur_matrix(width, sigma_px).T
    u = np.linspace(-1.0, 1.0, width, dtype=np.float32)[None, :]
    v = np.linspace(-1.0, 1.0, height, dtype=np.float32)[:, None]
    lamp = 1.0 + microscope.gradient[0] * u + microscope.gradient[1] * v
    lamp = lamp - np.float32(microscope.vignetting / 2.0) * (u * u + v * v)
    light = light * (lamp * np.float32(255.0))[None] * np.asarray(microscope.white, np.float32)[:, None, None]
    # Photons: the noise's variance grows with the light.
    grain = rng.standard_normal(light.shape, dtype=np.float32)
    light = light + grain * (np.sqrt(light) * np.float32(microscope.noise / 255.0**0.5))
    picture = np.clip(np.rint(light), 0.0, 255.0).astype(np.uint8)
    return np.ascontiguousarray(picture.transpose(1, 2, 0))

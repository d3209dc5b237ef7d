"""Random streams that depend only on integer keys, and smooth noise that does not depend on the pixel size."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

_SPLINE_RMS = 0.48
"""Root mean square of the sum of a cubic B-spline's products in two dimensions, at unit lattice variance."""


class Purpose(IntEnum):
    """What a stream is drawn for. The values are part of what a seed means: add to them, never renumber."""

    CLASS = 1
    CELL = 2
    SCENE = 3
    SENSOR = 4
    SMEAR_CELL = 5
    SMEAR_SCENE = 6
    SMEAR_SENSOR = 7


class Texture(IntEnum):
    """Index of each stream of one cell's `texture_seed`; as with `Purpose`, never renumber."""

    CLUMPS = 1
    FINE_CHROMATIN = 2
    BROAD_CYTOPLASM = 3
    GROUND_GLASS = 4
    WARP_X = 5
    WARP_Y = 6
    GRANULES = 7


def stream(seed: int, index: int = 0, purpose: int = 0) -> np.random.Generator:
    """The generator of one purpose of one image: a pure function of the three integers.

    Philox is counter based, so neither the order of calls nor the number of processes matters.
    """
    key = np.array([seed % 2**64, index % 2**64], dtype=np.uint64)
    counter = np.array([0, 0, 0, purpose], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def _spline_weights(position: np.ndarray, count: int) -> np.ndarray:
    """Cubic B-spline weights (n, count) of lattice points 0 … count-1 at positions in lattice units."""
    base = np.clip(np.floor(position).astype(np.int64), 1, count - 3)
    t = np.clip(position - base, 0.0, 1.0)
    u = 1.0 - t
    rows = np.arange(len(position))
    weights = np.zeros((len(position), count), np.float32)
    weights[rows, base - 1] = u * u * u / 6.0
    weights[rows, base] = (3.0 * t * t * t - 6.0 * t * t + 4.0) / 6.0
    weights[rows, base + 1] = (3.0 * u * u * u - 6.0 * u * u + 4.0) / 6.0
    weights[rows, base + 2] = t * t * t / 6.0
    return weights


def smooth_noise(
    rng: np.random.Generator, x_um: np.ndarray, y_um: np.ndarray, *, pitch_um: float, extent_um: float
) -> np.ndarray:
    """Band-limited Gaussian noise (H, W), float32, mean 0 and variance about 1, with grains of about 2 pitches.

    The lattice spans -extent_um … extent_um around the origin of the coordinates, so the field is the same
    however finely, and in whatever window, it is sampled.
    """
    count = int(np.ceil(2.0 * extent_um / pitch_um)) + 4
    lattice = rng.standard_normal((count, count), dtype=np.float32)
    columns = _spline_weights((x_um + extent_um) / pitch_um + 1.0, count)
    rows = _spline_weights((y_um + extent_um) / pitch_um + 1.0, count)
    return (rows @ lattice @ columns.T) / np.float32(_SPLINE_RMS)

"""Colour by the Beer-Lambert law: how much dye lies in the light's path, and what each dye absorbs.

A Romanowsky stain (Giemsa, May-Gruenwald-Giemsa, Wright) is a thiazine dye (azure B, blue), eosin Y (pink)
and the purple complex that the two form on nucleic acids. Haemoglobin colours red cells beside eosin.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Natural-log optical density per unit of dye in red, green and blue.
_DYES = np.array(
    [
        (0.80, 0.55, 0.14),  # azure B
        (0.60, 0.90, 0.30),  # azure-eosin complex
        (0.22, 0.74, 0.60),  # eosin Y
        (0.17, 0.27, 0.20),  # haemoglobin with eosin, one red cell thick
    ],
    np.float32,
)

# Amounts of azure, complex, eosin and haemoglobin in each part.
_PARTS: dict[str, tuple[float, float, float, float]] = {
    "chromatin dense": (0.10, 2.05, 0.05, 0.0),
    "chromatin loose": (0.12, 1.25, 0.08, 0.0),
    "light blue": (0.13, 0.09, 0.03, 0.0),
    "blue": (0.48, 0.14, 0.00, 0.0),
    "purple blue": (0.27, 0.42, 0.00, 0.0),
    "pink": (0.00, 0.50, 0.54, 0.0),
    "purple": (0.10, 1.95, 0.10, 0.0),
    "red": (0.00, 0.16, 0.92, 0.0),
    "haemoglobin": (0.0, 0.0, 0.0, 1.0),
    "platelet": (0.25, 0.35, 0.02, 0.0),
    "platelet granule": (0.20, 1.30, 0.05, 0.0),
    "precipitate": (1.60, 1.60, 0.00, 0.0),
}


@dataclass(frozen=True, kw_only=True)
class Stain:
    """One slide's stain: strength of each dye, and how far its hue drifts from the nominal one.

    Attributes:
        strengths: factor for azure, complex, eosin, haemoglobin.
        drift: added to the dyes' densities per unit, 4 rows of red, green, blue.
    """

    strengths: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    drift: tuple[tuple[float, float, float], ...] = ((0.0, 0.0, 0.0),) * 4

    def colour(self, part: str) -> np.ndarray:
        """Optical density (3,) float32 of a part of the smear on this slide."""
        amounts = np.asarray(_PARTS[part], np.float32) * np.asarray(self.strengths, np.float32)
        return amounts @ (_DYES + np.asarray(self.drift, np.float32))


def sample_stain(rng: np.random.Generator) -> Stain:
    """A slide from a laboratory that varies: overall and per-dye strength, pH shift, hue."""
    overall = float(np.exp(rng.normal(0.0, 0.12)))
    # A low pH favours eosin over azure, a high pH the reverse.
    acidity = float(rng.normal(0.0, 0.10))
    own = np.exp(rng.normal(0.0, 0.08, size=4))
    tilt = np.exp(np.array([-acidity, -0.3 * acidity, acidity, 0.5 * acidity]))
    strengths = overall * own * tilt
    # Haemoglobin is not a stain: its density varies with the smear's thickness, more widely.
    strengths[3] = float(np.exp(rng.normal(0.0, 0.2))) * tilt[3]
    drift = rng.normal(0.0, 0.03, size=(4, 3)) * np.array([[1.0], [1.0], [1.0], [0.6]])
    # Old haemoglobin and buffer change red cells from pink over grey to blue.
    drift[3] += rng.normal(0.0, 1.0) * np.array([0.05, 0.0, -0.04])
    a, b, c, d = (float(s) for s in strengths)
    return Stain(strengths=(a, b, c, d), drift=tuple((float(r), float(g), float(b)) for r, g, b in drift))

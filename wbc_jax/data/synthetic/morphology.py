"""Random cells of each class. Shares of the attribute values are those of WBCAtt's training split (PBC images,
Tsutsui et al. 2023), so that classes overlap as they do in blood: a bilobed nucleus may be an eosinophil's, a
neutrophil's or a basophil's."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from wbc_jax.data.synthetic.geometry import Outline, capsule_distance, outline_distance
from wbc_jax.data.synthetic.nuclei import sample_nucleus
from wbc_jax.data.synthetic.spec import CellSpec, Granules, Nucleus

SYNTHETIC_CLASSES: tuple[str, ...] = ("basophil", "eosinophil", "lymphocyte", "monocyte", "neutrophil")


@dataclass(frozen=True, kw_only=True)
class _Habit:
    """How cells of one class look: means, spreads (standard deviations) and shares of values."""

    diameter_um: tuple[float, float]
    irregular: float
    blebs: float
    nucleus_shapes: dict[str, float]
    high_ratio: float
    low_fraction: tuple[float, float]
    high_fraction: tuple[float, float]
    loose: float
    vacuoles: float
    frosted: float
    colours: dict[str, float]


_HABITS: dict[str, _Habit] = {
    "basophil": _Habit(
        diameter_um=(11.8, 1.1),
        irregular=0.11,
        blebs=0.0,
        nucleus_shapes={
            "irregular": 0.41,
            "segmented-bilobed": 0.29,
            "segmented-multilobed": 0.18,
            "unsegmented-band": 0.07,
            "unsegmented-indented": 0.02,
            "unsegmented-round": 0.03,
        },
        high_ratio=0.005,
        low_fraction=(0.32, 0.52),
        high_fraction=(0.66, 0.72),
        loose=0.0,
        vacuoles=0.003,
        frosted=0.0,
        colours={"light blue": 0.995, "purple blue": 0.005},
    ),
    "eosinophil": _Habit(
        diameter_um=(12.9, 1.15),
        irregular=0.08,
        blebs=0.0,
        nucleus_shapes={
            "irregular": 0.008,
            "segmented-bilobed": 0.695,
            "segmented-multilobed": 0.181,
            "unsegmented-band": 0.106,
            "unsegmented-indented": 0.006,
            "unsegmented-round": 0.004,
        },
        high_ratio=0.001,
        low_fraction=(0.22, 0.38),
        high_fraction=(0.66, 0.70),
        loose=0.007,
        vacuoles=0.003,
        frosted=0.0,
        colours={"light blue": 0.999, "blue": 0.001},
    ),
    "lymphocyte": _Habit(
        diameter_um=(9.9, 1.05),
        irregular=0.33,
        blebs=0.6,
        nucleus_shapes={"irregular": 0.03, "unsegmented-indented": 0.19, "unsegmented-round": 0.78},
        high_ratio=0.92,
        low_fraction=(0.45, 0.55),
        high_fraction=(0.66, 0.84),
        loose=0.02,
        vacuoles=0.0,
        frosted=0.64,
        colours={"light blue": 0.035, "blue": 0.61, "purple blue": 0.355},
    ),
    "monocyte": _Habit(
        diameter_um=(14.0, 1.35),
        irregular=0.57,
        blebs=0.25,
        nucleus_shapes={
            "irregular": 0.205,
            "segmented-bilobed": 0.005,
            "unsegmented-indented": 0.725,
            "unsegmented-round": 0.065,
        },
        high_ratio=0.075,
        low_fraction=(0.36, 0.54),
        high_fraction=(0.66, 0.72),
        loose=0.59,
        vacuoles=0.47,
        frosted=0.88,
        colours={"light blue": 0.085, "blue": 0.4575, "purple blue": 0.4575},
    ),
    "neutrophil": _Habit(
        diameter_um=(12.8, 1.15),
        irregular=0.23,
        blebs=0.05,
        nucleus_shapes={
            "irregular": 0.008,
            "segmented-bilobed": 0.186,
            "segmented-multilobed": 0.12,
            "unsegmented-band": 0.682,
            "unsegmented-indented": 0.001,
            "unsegmented-round": 0.003,
        },
        high_ratio=0.001,
        low_fraction=(0.22, 0.38),
        high_fraction=(0.66, 0.70),
        loose=0.011,
        vacuoles=0.035,
        frosted=0.0,
        colours={"light blue": 1.0},
    ),
}


def _choose(rng: np.random.Generator, shares: dict[str, float]) -> str:
    """One of the names, each with its share."""
    edges = np.cumsum(list(shares.values()))
    place = int(np.searchsorted(edges, rng.random() * edges[-1], side="right"))
    return list(shares)[min(place, len(shares) - 1)]


def _granules(rng: np.random.Generator, cell_class: str) -> Granules:
    if cell_class == "neutrophil":
        return Granules(
            kind="small",
            colour=_choose(rng, {"pink": 0.974, "purple": 0.026}),
            radius_um=float(rng.uniform(0.13, 0.20)),
            spread=0.3,
            pitch_um=float(rng.uniform(0.5, 0.75)),
            filled=float(rng.uniform(0.6, 0.95)),
        )
    if cell_class == "eosinophil":
        radius = float(rng.uniform(0.32, 0.46))
        return Granules(
            kind="round",
            colour="red",
            radius_um=radius,
            spread=0.12,
            pitch_um=radius * float(rng.uniform(1.7, 2.1)),
            filled=float(rng.uniform(0.85, 1.0)),
        )
    if cell_class == "basophil":
        radius = float(rng.uniform(0.34, 0.50))
        return Granules(
            kind="coarse",
            colour="purple",
            radius_um=radius,
            spread=0.28,
            pitch_um=radius * float(rng.uniform(2.1, 3.2)),
            filled=float(rng.uniform(0.55, 0.95)),
            over_nucleus=True,
        )
    return Granules()


def _outline(rng: np.random.Generator, habit: _Habit) -> Outline:
    """Round cells stay well below the roughness that counts as irregular, irregular ones well above."""
    diameter = float(np.clip(rng.normal(*habit.diameter_um), 7.5, 17.5))
    irregular = rng.random() < habit.irregular
    blebbed = irregular and rng.random() < habit.blebs
    roughness = rng.uniform(0.055, 0.1) if irregular and not blebbed else rng.uniform(0.008, 0.03)
    orders = (2, 3, 4, 5, 6, 8)
    weights = np.abs(rng.normal(size=len(orders))) / np.array(orders) ** 0.9
    amplitudes = weights * (roughness * math.sqrt(2.0) / math.sqrt(float((weights**2).sum())))
    phases = rng.uniform(0.0, 2.0 * math.pi, size=len(orders))
    blebs = ()
    if blebbed:
        blebs = tuple(
            (
                float(rng.uniform(-math.pi, math.pi)),
                float(rng.uniform(0.08, 0.2)),
                float(rng.uniform(0.1, 0.24)),
            )
            for _ in range(int(rng.integers(2, 6)))
        )
    harmonics = tuple((o, float(a), float(p)) for o, a, p in zip(orders, amplitudes, phases, strict=True))
    return Outline(radius_um=diameter / 2.0, harmonics=harmonics, blebs=blebs)


def _vacuoles(
    rng: np.random.Generator, outline: Outline, nucleus: Nucleus
) -> tuple[tuple[float, float, float], ...]:
    """Two to eight bubbles in the cytoplasm, at least one even when there is little room."""
    reach = outline.radius_um
    x, y = rng.uniform(-reach, reach, size=(2, 40)).astype(np.float32)
    radius = rng.uniform(0.3, 0.75, size=40)
    free = (outline_distance(x, y, outline) < -radius - 0.2) & (
        capsule_distance(x[None], y[None], nucleus.lobes).min(axis=0)[0] > 0.6 * radius
    )
    wanted = int(rng.integers(2, 9))
    places = np.flatnonzero(free)[:wanted]
    if len(places) == 0:
        return ((float(0.7 * reach), 0.0, 0.4),)
    return tuple((float(x[i]), float(y[i]), float(radius[i])) for i in places)


def sample_spec(rng: np.random.Generator, cell_class: str) -> CellSpec:
    """A random cell of one of `SYNTHETIC_CLASSES`."""
    habit = _HABITS[cell_class]
    outline = _outline(rng, habit)
    fraction = rng.uniform(*(habit.high_fraction if rng.random() < habit.high_ratio else habit.low_fraction))
    loose = rng.random() < habit.loose
    nucleus = sample_nucleus(
        rng,
        _choose(rng, habit.nucleus_shapes),
        outline,
        fraction=float(fraction),
        looseness=float(rng.uniform(0.65, 1.0) if loose else rng.uniform(0.0, 0.35)),
    )
    frosted = rng.random() < habit.frosted
    return CellSpec(
        cell_class=cell_class,
        outline=outline,
        nucleus=nucleus,
        cytoplasm_colour=_choose(rng, habit.colours),
        frosting=float(rng.uniform(0.65, 1.0) if frosted else rng.uniform(0.0, 0.3)),
        vacuoles=_vacuoles(rng, outline, nucleus) if rng.random() < habit.vacuoles else (),
        granules=_granules(rng, cell_class),
        texture_seed=int(rng.integers(2**62)),
    )

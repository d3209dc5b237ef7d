"""One white cell as numbers: everything that the drawing shows, and the attributes that follow from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wbc_jax.catalog import ATTRIBUTES
from wbc_jax.data.synthetic.geometry import (
    Capsule,
    Outline,
    capsule_distance,
    outline_distance,
    smooth_union,
)

BIG_DIAMETER_UM = 12.5
"""From this diameter on a cell is `big`: about 1.7 red cells across."""
IRREGULAR_ROUGHNESS = 0.04
"""From this outline roughness on a cell is `irregular`; a bleb makes it so as well."""
HIGH_NUCLEUS_FRACTION = 0.6
"""From this share of the cell's area on a nucleus makes the nuclear-cytoplasmic ratio `high`."""
LOOSE_CHROMATIN = 0.5
"""From this looseness on chromatin is `loosely` packed."""
FROSTED_TEXTURE = 0.5
"""From this frosting on the cytoplasm is `frosted`."""

_FRACTION_GRID = 40


@dataclass(frozen=True, kw_only=True)
class Nucleus:
    """Lobes and the filaments between them, less notches; micrometres from the cell's centre.

    Attributes:
        shape: value of the attribute `nucleus_shape`.
        lobes, filaments, notches: capsules; lobes and filaments are joined, notches cut out.
        blend_um: how widely creases between lobes are rounded.
        looseness: 0 dense dark chromatin … 1 pale, lacy chromatin.
    """

    shape: str
    lobes: tuple[Capsule, ...]
    filaments: tuple[Capsule, ...] = ()
    notches: tuple[Capsule, ...] = ()
    blend_um: float = 0.0
    looseness: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Granules:
    """Granules of one kind: `nil`, or `small`, `round`, `coarse` with a colour.

    Attributes:
        kind, colour: values of the attributes `granule_type` and `granule_colour`.
        radius_um: mean radius; `spread` is its relative standard deviation.
        pitch_um: distance between neighbouring sites; `filled` is the share of sites that hold one.
        over_nucleus: whether granules lie over the nucleus too.
    """

    kind: str = "nil"
    colour: str = "nil"
    radius_um: float = 0.0
    spread: float = 0.0
    pitch_um: float = 1.0
    filled: float = 0.0
    over_nucleus: bool = False


@dataclass(frozen=True, kw_only=True)
class CellSpec:
    """A white cell. Drawing is a pure function of this value.

    Attributes:
        cell_class: one of the five mature classes of `catalog.CELL_CLASSES`.
        outline: the cell's border.
        nucleus: lobes, filaments, notches and chromatin.
        cytoplasm_colour: value of the attribute of that name.
        frosting: 0 clear … 1 ground-glass cytoplasm.
        vacuoles: (x, y, radius) in micrometres from the cell's centre.
        granules: kind, colour, size and density.
        texture_seed: seed of the chromatin, cytoplasm and granule positions.
    """

    cell_class: str
    outline: Outline
    nucleus: Nucleus
    cytoplasm_colour: str
    frosting: float
    vacuoles: tuple[tuple[float, float, float], ...]
    granules: Granules
    texture_seed: int


def nucleus_distance(x: np.ndarray, y: np.ndarray, nucleus: Nucleus, cell_distance: np.ndarray) -> np.ndarray:
    """Signed distance to the nucleus (H, W), kept inside the cell by a thin rim of cytoplasm."""
    inside = smooth_union(capsule_distance(x, y, nucleus.lobes), nucleus.blend_um)
    if nucleus.filaments:
        inside = np.minimum(inside, capsule_distance(x, y, nucleus.filaments).min(axis=0))
    if nucleus.notches:
        outside = -smooth_union(capsule_distance(x, y, nucleus.notches), nucleus.blend_um)
        inside = -smooth_union(-np.stack([inside, outside]), 0.25)
    return -smooth_union(-np.stack([inside, cell_distance + np.float32(0.25)]), 0.15)


def nucleus_fraction(outline: Outline, nucleus: Nucleus) -> float:
    """Share of the cell's area that its nucleus covers, on a grid of about a third of a micrometre."""
    reach = outline.reach_um
    axis = np.linspace(-reach, reach, _FRACTION_GRID, dtype=np.float32)
    x, y = axis[None, :], axis[:, None]
    cell = outline_distance(x, y, outline)
    soft = np.float32(axis[1] - axis[0])
    cell_area = np.clip(0.5 - cell / soft, 0.0, 1.0).sum()
    nucleus_area = np.clip(0.5 - nucleus_distance(x, y, nucleus, cell) / soft, 0.0, 1.0).sum()
    return float(nucleus_area / cell_area)


def attributes_of(spec: CellSpec) -> tuple[int, ...]:
    """The 11 value indices of a cell, in the order of `catalog.ATTRIBUTES`."""
    values = {
        "cell_size": "big" if 2.0 * spec.outline.radius_um >= BIG_DIAMETER_UM else "small",
        "cell_shape": "irregular"
        if spec.outline.blebs or spec.outline.roughness >= IRREGULAR_ROUGHNESS
        else "round",
        "nucleus_shape": spec.nucleus.shape,
        "nuclear_cytoplasmic_ratio": "high"
        if nucleus_fraction(spec.outline, spec.nucleus) >= HIGH_NUCLEUS_FRACTION
        else "low",
        "chromatin_density": "loosely" if spec.nucleus.looseness >= LOOSE_CHROMATIN else "densely",
        "cytoplasm_vacuole": "yes" if spec.vacuoles else "no",
        "cytoplasm_texture": "frosted" if spec.frosting >= FROSTED_TEXTURE else "clear",
        "cytoplasm_colour": spec.cytoplasm_colour,
        "granule_type": spec.granules.kind,
        "granule_colour": spec.granules.colour,
        "granularity": "no" if spec.granules.kind == "nil" else "yes",
    }
    return tuple(attribute.encode(values[attribute.name]) for attribute in ATTRIBUTES)

"""The pieces of the renderer against formulas and libraries: shapes, noise, colour, lens, and cells as numbers."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import label, regionprops

from wbc_jax.catalog import ATTRIBUTE_NAMES, ATTRIBUTES
from wbc_jax.data.synthetic.geometry import (
    Canvas,
    Capsule,
    Outline,
    capsule_distance,
    coverage,
    outline_distance,
    smooth_union,
)
from wbc_jax.data.synthetic.morphology import SYNTHETIC_CLASSES, sample_spec
from wbc_jax.data.synthetic.noise import smooth_noise, stream
from wbc_jax.data.synthetic.nuclei import sample_nucleus
from wbc_jax.data.synthetic.optics import Microscope, expose
from wbc_jax.data.synthetic.spec import CellSpec, attributes_of, nucleus_fraction
from wbc_jax.data.synthetic.stain import Stain
from wbc_jax.data.synthetic.white_cells import draw_white_cell

CLEAR = Microscope(white=(1.0, 0.9, 0.8), gradient=(0.0, 0.0), vignetting=0.0, blur_um=0.0, noise=0.0)


def _grid(pitch_um: float = 0.05, half_um: float = 8.0) -> tuple[np.ndarray, np.ndarray]:
    axis = np.arange(-half_um, half_um, pitch_um, dtype=np.float32) + np.float32(pitch_um / 2)
    return axis[None, :], axis[:, None]


def _edt(mask: np.ndarray) -> np.ndarray:
    """Exact distance in pixels to the nearest pixel outside the mask."""
    return np.asarray(ndimage.distance_transform_edt(mask))


def _value(spec: CellSpec, name: str) -> str:
    place = ATTRIBUTE_NAMES.index(name)
    return ATTRIBUTES[place].values[attributes_of(spec)[place]]


def test_capsule_has_the_area_of_a_rectangle_and_a_disc() -> None:
    x, y = _grid()
    inside = coverage(capsule_distance(x, y, (Capsule(-2.0, -1.0, 2.0, 2.0, 1.5, 1.5),))[0], 0.05)
    assert inside.sum() * 0.05**2 == pytest.approx(5.0 * 3.0 + math.pi * 1.5**2, rel=2e-3)


def test_outline_distance_is_the_euclidean_distance_near_the_border() -> None:
    outline = Outline(radius_um=6.0, harmonics=((2, 0.06, 0.3), (3, 0.05, 1.0), (5, 0.02, 2.0)))
    x, y = _grid()
    ours = outline_distance(x, y, outline)
    exact = _edt(ours >= 0) - _edt(ours < 0)
    near = np.abs(ours) < 0.8
    assert np.abs(ours - exact * 0.05)[near].max() < 0.12
    assert (ours < 0).sum() * 0.05**2 == pytest.approx(
        math.pi * 36.0 * (1.0 + (0.06**2 + 0.05**2 + 0.02**2) / 2.0), rel=2e-3
    )


def test_roughness_is_the_relative_spread_of_the_radius() -> None:
    outline = Outline(radius_um=5.0, harmonics=((2, 0.05, 0.3), (6, 0.03, 1.0)))
    radius, slope = outline.radius_table()
    assert outline.roughness == pytest.approx(float(radius[:-1].std() / 5.0), rel=1e-6)
    assert radius.max() <= outline.reach_um
    assert slope.max() == pytest.approx(
        float(np.gradient(radius, np.linspace(-np.pi, np.pi, len(radius))).max()), rel=1e-2
    )


def test_smooth_union_never_lies_outside_the_plain_union_and_tends_to_it() -> None:
    x, y = _grid(0.2)
    parts = capsule_distance(x, y, (Capsule(-2, 0, -1, 0, 1, 1), Capsule(1, 0, 2, 1, 1, 1.5)))
    plain = parts.min(axis=0)
    assert (smooth_union(parts, 0.3) <= plain + 1e-6).all()
    assert np.abs(smooth_union(parts, 1e-3) - plain).max() < 1e-3
    np.testing.assert_array_equal(smooth_union(parts, 0.0), plain)


def test_noise_is_standardised_and_does_not_depend_on_the_pixel_size() -> None:
    axis = np.linspace(-9.0, 9.0, 181, dtype=np.float32)
    fine = smooth_noise(stream(1, 2, 3), axis, axis, pitch_um=0.25, extent_um=9.0)
    coarse = smooth_noise(stream(1, 2, 3), axis[::4], axis[40:60], pitch_um=0.25, extent_um=9.0)
    np.testing.assert_allclose(coarse, fine[40:60, ::4], atol=1e-4)
    assert abs(fine.mean()) < 0.1
    assert 0.9 < fine.std() < 1.1


def test_streams_differ_by_seed_index_and_purpose() -> None:
    keys = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (-1, 0, 0), (2**63, 5, 0)]
    first = {key: stream(*key).random() for key in keys}
    assert len(set(first.values())) == len(keys)
    assert stream(7, 8, 9).random() == stream(7, 8, 9).random()


def test_twice_the_stain_squares_the_transmitted_light() -> None:
    one, two = Stain(), Stain(strengths=(2.0, 2.0, 2.0, 2.0))
    for part in ("chromatin dense", "red", "haemoglobin", "blue"):
        np.testing.assert_allclose(np.exp(-one.colour(part)) ** 2, np.exp(-two.colour(part)), rtol=1e-5)


def test_parts_have_the_hues_of_a_romanowsky_stain() -> None:
    light = {part: np.exp(-Stain().colour(part)) for part in ("chromatin dense", "red", "blue", "pink")}
    assert light["chromatin dense"].argmax() == 2
    assert light["chromatin dense"].mean() < min(light[p].mean() for p in ("red", "blue", "pink"))
    assert light["red"].argmax() == 0
    assert light["blue"].argmax() == 2
    assert light["blue"][0] == light["blue"].min()
    assert light["pink"].argmax() == 0


def test_a_clear_field_shows_the_lamp_and_blur_keeps_the_light() -> None:
    rng = stream(0)
    blank = expose(np.zeros((3, 20, 30), np.float32), 0.25, CLEAR, rng)
    assert blank.shape == (20, 30, 3)
    assert (blank == np.rint(np.array([1.0, 0.9, 0.8]) * 255)).all()
    od = np.zeros((3, 41, 41), np.float32)
    od[:, 18:23, 17:24] = 1.0
    sharp = expose(od, 0.25, CLEAR, rng)[..., 0].astype(np.float64)
    soft = expose(od, 0.25, replace(CLEAR, blur_um=0.5), rng)[..., 0].astype(np.float64)
    oracle = ndimage.gaussian_filter(np.exp(-od[0].astype(np.float64)) * 255.0, 2.0)
    assert np.abs(soft - oracle).max() < 1.0
    assert soft.mean() == pytest.approx(sharp.mean(), rel=1e-3)


def test_noise_of_the_sensor_has_the_stated_strength() -> None:
    grey = replace(CLEAR, white=(0.8, 0.8, 0.8), noise=3.0)
    picture = expose(np.zeros((3, 128, 128), np.float32), 0.25, grey, stream(3)).astype(np.float64)
    # Photon noise: the variance at 80 % light is 80 % of that at white; rounding adds 1/12.
    assert picture.std() == pytest.approx(math.sqrt(0.8 * 9.0 + 1.0 / 12.0), rel=0.02)


@pytest.mark.parametrize("cell_class", SYNTHETIC_CLASSES)
def test_attributes_follow_from_the_numbers(cell_class: str) -> None:
    for index in range(40):
        spec = sample_spec(stream(11, index), cell_class)
        assert attributes_of(spec) == attributes_of(replace(spec, texture_seed=0))
        assert _value(spec, "nucleus_shape") == spec.nucleus.shape
        assert _value(spec, "cytoplasm_colour") == spec.cytoplasm_colour
        assert (_value(spec, "granule_type"), _value(spec, "granule_colour")) == (
            spec.granules.kind,
            spec.granules.colour,
        )
        assert (_value(spec, "granularity") == "no") == (spec.granules.kind == "nil")
        assert (_value(spec, "granule_colour") == "nil") == (spec.granules.kind == "nil")
        assert (_value(spec, "cytoplasm_vacuole") == "yes") == bool(spec.vacuoles)


def test_changing_one_number_changes_its_attribute_alone() -> None:
    spec = sample_spec(stream(2), "neutrophil")
    before = dict(zip(ATTRIBUTE_NAMES, attributes_of(spec), strict=True))

    def changed(other: CellSpec) -> set[str]:
        after = zip(ATTRIBUTE_NAMES, attributes_of(other), strict=True)
        return {name for name, value in after if before[name] != value}

    assert changed(replace(spec, vacuoles=((1.0, 1.0, 0.5),))) == {"cytoplasm_vacuole"}
    assert changed(replace(spec, frosting=0.9)) == {"cytoplasm_texture"}
    assert changed(replace(spec, nucleus=replace(spec.nucleus, looseness=0.9))) == {"chromatin_density"}
    assert changed(replace(spec, cytoplasm_colour="blue")) == {"cytoplasm_colour"}
    bleb = replace(spec.outline, blebs=((0.0, 0.1, 0.2),), harmonics=())
    assert "cell_shape" in changed(replace(spec, outline=bleb))


@pytest.mark.parametrize(
    ("shape", "lobes"),
    [
        ("segmented-bilobed", (2, 2)),
        ("segmented-multilobed", (3, 5)),
        ("unsegmented-band", (1, 1)),
        ("unsegmented-indented", (1, 1)),
        ("unsegmented-round", (1, 1)),
    ],
)
def test_nucleus_shape_shows_in_the_drawn_mask(shape: str, lobes: tuple[int, int]) -> None:
    """Eroding by half a micrometre cuts filaments: what is left are the lobes."""
    counts, solidity = [], []
    for index in range(30):
        rng = stream(5, index)
        spec = sample_spec(rng, "neutrophil")
        outline = Outline(radius_um=6.5)
        nucleus = sample_nucleus(rng, shape, outline, fraction=0.3, looseness=0.0)
        canvas = Canvas.blank(160, 160, 0.1)
        drawn = draw_white_cell(canvas, replace(spec, outline=outline, nucleus=nucleus), 0.0, 0.0, Stain())
        padded = np.pad(drawn.nucleus_mask, 1)
        core = _edt(padded) > 5.0
        counts.append(sum(region.area > 40 for region in regionprops(label(core))))
        solidity.append(regionprops(padded.astype(np.int32))[0].solidity)
    right = np.mean([lobes[0] <= count <= lobes[1] for count in counts])
    assert right >= 0.9, counts
    if shape == "unsegmented-round":
        assert min(solidity) > 0.93
    if shape in ("unsegmented-band", "segmented-multilobed"):
        assert np.mean(solidity) < 0.85


@pytest.mark.parametrize("shape", ATTRIBUTES[2].values)
def test_nucleus_is_fitted_to_the_wanted_share_of_the_cell(shape: str) -> None:
    outline = Outline(radius_um=6.0, harmonics=((2, 0.03, 0.0),))
    for index in range(10):
        nucleus = sample_nucleus(stream(6, index), shape, outline, fraction=0.3, looseness=0.0)
        assert nucleus_fraction(outline, nucleus) == pytest.approx(0.3, abs=0.03)


def test_a_cell_outside_the_field_leaves_it_alone() -> None:
    canvas = Canvas.blank(32, 32, 0.25)
    drawn = draw_white_cell(canvas, sample_spec(stream(1), "eosinophil"), 100.0, 0.0, Stain())
    assert drawn.cell_mask.size == 0
    assert not canvas.od.any()

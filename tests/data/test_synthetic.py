"""The rendered pictures: determinism, masks and attributes that agree, class shares, a task worth learning."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from wbc_jax.catalog import ATTRIBUTE_NAMES, ATTRIBUTES, CELL_CLASSES
from wbc_jax.data.synthetic.gallery import contact_sheet
from wbc_jax.data.synthetic.morphology import SYNTHETIC_CLASSES
from wbc_jax.data.synthetic.render import (
    RenderedCell,
    class_of,
    render_cell,
    render_dataset,
    render_sample,
    render_smear,
)
from wbc_jax.errors import UsageError

COUNT = 600
SIZE_PX = 72
PINNED = {
    "basophil": (
        (1, 1, 0, 1, 0, 0, 0, 1, 0, 2, 1),
        ((217.48, 221.02, 216.56), (167.42, 160.98, 180.80), (202.84, 202.68, 199.25)),
    ),
    "eosinophil": (
        (1, 1, 1, 1, 0, 0, 0, 1, 2, 3, 1),
        ((217.24, 218.54, 213.93), (174.05, 159.47, 174.32), (202.23, 201.07, 197.87)),
    ),
    "lymphocyte": (
        (1, 1, 4, 0, 0, 0, 1, 0, 1, 0, 0),
        ((219.36, 223.36, 217.77), (173.23, 170.05, 185.99), (203.70, 203.69, 199.74)),
    ),
    "monocyte": (
        (0, 1, 0, 1, 0, 1, 1, 2, 1, 0, 0),
        ((212.47, 215.74, 214.45), (155.13, 148.48, 175.50), (199.19, 198.90, 197.87)),
    ),
    "neutrophil": (
        (1, 1, 2, 1, 0, 0, 0, 1, 3, 1, 1),
        ((216.26, 219.16, 215.34), (176.62, 169.56, 185.25), (202.54, 202.20, 198.96)),
    ),
}


@pytest.fixture(scope="module")
def cells() -> list[RenderedCell]:
    return list(render_dataset(17, COUNT, SIZE_PX))


def _column(cells: list[RenderedCell], name: str) -> np.ndarray:
    place = ATTRIBUTE_NAMES.index(name)
    return np.array([ATTRIBUTES[place].values[cell.attributes[place]] for cell in cells])


def test_the_five_classes_are_the_catalogue_s_mature_ones() -> None:
    assert CELL_CLASSES[:5] == SYNTHETIC_CLASSES


def test_types_shapes_and_ids(cells: list[RenderedCell]) -> None:
    for index, cell in enumerate(cells[:20]):
        assert cell.sample_id == f"17/{index}"
        assert cell.image.dtype == np.uint8
        assert cell.image.shape == (SIZE_PX, SIZE_PX, 3)
        assert cell.image.flags.c_contiguous
        assert cell.cell_mask.dtype == cell.nucleus_mask.dtype == np.bool_
        assert cell.cell_mask.shape == cell.nucleus_mask.shape == (SIZE_PX, SIZE_PX)
        assert len(cell.attributes) == 11
        assert all(type(value) is int for value in cell.attributes)
        assert cell.image.max() > 180
        assert cell.image.min() < 110


def test_a_sample_depends_on_seed_and_index_only(cells: list[RenderedCell]) -> None:
    for index in (599, 3, 128):
        alone = render_sample(17, index, SIZE_PX)
        np.testing.assert_array_equal(alone.image, cells[index].image)
        np.testing.assert_array_equal(alone.nucleus_mask, cells[index].nucleus_mask)
        assert alone.spec == cells[index].spec
    assert (render_sample(18, 3, SIZE_PX).image != cells[3].image).any()
    assert len({cell.image.tobytes() for cell in cells}) == COUNT


def test_the_size_in_pixels_changes_nothing_but_the_sampling() -> None:
    for index in range(5):
        small, large = render_sample(4, index, 48), render_sample(4, index, 144)
        assert small.attributes == large.attributes
        for mask in ("cell_mask", "nucleus_mask"):
            coarse = getattr(large, mask)[1::3, 1::3]
            assert (coarse == getattr(small, mask)).mean() > 0.995
        inner = large.image.reshape(48, 3, 48, 3, 3).mean(axis=(1, 3))
        assert np.abs(inner - small.image).mean() < 6.0


def test_pinned_pictures() -> None:
    """Attributes, and mean colour in the upper, middle and lower third; half a grey level for another platform.

    A change here changes every embedded data set: it needs a new version of the data set's builder.
    """
    for name, (attributes, thirds) in PINNED.items():
        cell = render_cell(2024, name, 48)
        assert cell.attributes == attributes, name
        measured = cell.image.reshape(3, 16, 48, 3).mean(axis=(1, 2))
        np.testing.assert_allclose(measured, thirds, atol=0.5, err_msg=name)


def test_nucleus_lies_in_the_cell_and_the_cell_in_the_middle(cells: list[RenderedCell]) -> None:
    for cell in cells:
        assert cell.nucleus_mask.any()
        assert not (cell.nucleus_mask & ~cell.cell_mask).any()
        rows, columns = np.nonzero(cell.cell_mask)
        assert abs(rows.mean() - SIZE_PX / 2) < 0.12 * SIZE_PX
        assert abs(columns.mean() - SIZE_PX / 2) < 0.12 * SIZE_PX


def test_ratio_and_size_agree_with_the_masks(cells: list[RenderedCell]) -> None:
    share = np.array([cell.nucleus_mask.sum() / cell.cell_mask.sum() for cell in cells])
    high = _column(cells, "nuclear_cytoplasmic_ratio") == "high"
    assert high.any()
    assert share[high].min() > 0.58
    assert share[~high].max() < 0.60
    area = np.array([cell.cell_mask.sum() for cell in cells])
    big = _column(cells, "cell_size") == "big"
    # The field's zoom varies by 6 %, so only cells clearly on one side tell.
    diameter_um = 2.0 * np.sqrt(area / np.pi) * 24.0 / SIZE_PX
    assert diameter_um[big].min() > 12.5 * 0.92
    assert diameter_um[~big].max() < 12.5 * 1.08


def test_colours_within_the_masks(cells: list[RenderedCell]) -> None:
    nucleus, cytoplasm = {}, {}
    for name in SYNTHETIC_CLASSES:
        of_class = [cell for cell in cells if cell.cell_class == name]
        nucleus[name] = np.mean([cell.image[cell.nucleus_mask].mean(axis=0) for cell in of_class], axis=0)
        rims = [cell.cell_mask & ~cell.nucleus_mask for cell in of_class]
        cytoplasm[name] = np.mean(
            [c.image[r].mean(axis=0) for c, r in zip(of_class, rims, strict=True)], axis=0
        )
        outside = np.mean([cell.image[~cell.cell_mask].mean() for cell in of_class])
        assert nucleus[name].mean() < cytoplasm[name].mean() < outside
    assert nucleus["monocyte"].mean() > nucleus["lymphocyte"].mean()
    redness = {name: colour[0] - colour[2] for name, colour in cytoplasm.items()}
    assert max(redness, key=lambda name: redness[name]) == "eosinophil"
    assert min(redness, key=lambda name: redness[name]) in ("lymphocyte", "monocyte")


def test_attribute_shares_resemble_wbcatt(cells: list[RenderedCell]) -> None:
    name = np.array([cell.cell_class for cell in cells])
    shape, size = _column(cells, "nucleus_shape"), _column(cells, "cell_size")

    def share(column: np.ndarray, value: str, cell_class: str) -> float:
        return float((column[name == cell_class] == value).mean())

    # WBCAtt's training split; 120 cells a class give a standard error of at most 0.046.
    assert share(shape, "unsegmented-band", "neutrophil") == pytest.approx(0.68, abs=0.14)
    assert share(shape, "segmented-bilobed", "eosinophil") == pytest.approx(0.70, abs=0.14)
    assert share(shape, "unsegmented-round", "lymphocyte") == pytest.approx(0.78, abs=0.14)
    assert share(shape, "unsegmented-indented", "monocyte") == pytest.approx(0.73, abs=0.14)
    assert share(size, "big", "monocyte") == pytest.approx(0.87, abs=0.12)
    assert share(size, "big", "basophil") == pytest.approx(0.26, abs=0.14)
    assert share(size, "big", "lymphocyte") < 0.06
    assert share(_column(cells, "cytoplasm_vacuole"), "yes", "monocyte") == pytest.approx(0.47, abs=0.14)
    for value, cell_class in (("coarse", "basophil"), ("round", "eosinophil"), ("small", "neutrophil")):
        assert share(_column(cells, "granule_type"), value, cell_class) == 1.0


def test_mean_colour_does_not_give_the_class_away(cells: list[RenderedCell]) -> None:
    pixels = np.stack([cell.image for cell in cells]).reshape(COUNT, -1, 3)
    labels = [cell.cell_class for cell in cells]
    features = np.concatenate([pixels.mean(axis=1), pixels.std(axis=1)], axis=1)
    for columns, limit in ((features[:, :3], 0.6), (features, 0.9)):
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        model.fit(columns[:400], labels[:400])
        assert model.score(columns[400:], labels[400:]) < limit


def test_class_shares_hold_in_every_run_of_indices() -> None:
    for start in (0, 1000):
        run = [class_of(3, index) for index in range(start, start + 100)]
        assert all(17 <= run.count(name) <= 23 for name in SYNTHETIC_CLASSES)
    shares = {"neutrophil": 6.0, "lymphocyte": 3.0, "eosinophil": 1.0}
    run = [class_of(3, index, shares) for index in range(1000)]
    assert abs(run.count("neutrophil") - 600) <= 5
    assert abs(run.count("lymphocyte") - 300) <= 5
    assert abs(run.count("eosinophil") - 100) <= 5
    only = next(iter(render_dataset(0, 1, 16, {"monocyte": 1.0})))
    assert only.cell_class == "monocyte"


@pytest.mark.parametrize(
    "shares",
    [{"blast": 1.0}, {"monocyte": -1.0, "basophil": 2.0}, {"monocyte": 0.0}, {"monocyte": float("nan")}, {}],
)
def test_bad_shares_are_refused(shares: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="class shares"):
        render_sample(0, 0, 32, shares)


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(UsageError, match="erythroblast"):
        render_cell(0, "erythroblast")
    for size_px in (0, 15, 4096):
        with pytest.raises(UsageError, match="size_px"):
            render_cell(0, "monocyte", size_px)
    with pytest.raises(UsageError, match="30 white cells"):
        render_smear(0, (128, 128), num_white_cells=30)


def test_contact_sheet_holds_one_row_per_class() -> None:
    sheet = contact_sheet(seed=1, columns=3, size_px=32, gap_px=2)
    assert sheet.shape == (5 * 34 - 2, 3 * 34 - 2, 3)
    assert sheet.dtype == np.uint8
    assert (sheet[32:34] == 255).all()
    tiles = [sheet[r * 34 : r * 34 + 32, c * 34 : c * 34 + 32].tobytes() for r in range(5) for c in range(3)]
    assert len(set(tiles)) == 15


def test_smear_boxes_masks_and_classes_agree() -> None:
    smear = render_smear(8, (240, 320), num_white_cells=3, num_red_cells=40)
    assert smear.image.shape == (240, 320, 3)
    assert smear.image.dtype == np.uint8
    assert smear.boxes.shape == (3, 4)
    assert smear.attributes.shape == (3, 11)
    assert len(smear.classes) == 3
    assert sorted(np.unique(smear.cell_labels)) == [0, 1, 2, 3]
    nucleus = smear.nucleus_labels > 0
    np.testing.assert_array_equal(smear.nucleus_labels[nucleus], smear.cell_labels[nucleus])
    for number, (x_min, y_min, x_max, y_max) in enumerate(smear.boxes):
        own = smear.cell_labels == number + 1
        assert own[y_min:y_max, x_min:x_max].sum() == own.sum()
        assert own[y_min].any()
        assert own[y_max - 1].any()
        assert own[:, x_min].any()
        assert own[:, x_max - 1].any()
        # Whole cells: none is cut by the border of the field.
        assert min(x_min, y_min) > 0
        assert x_max < 320
        assert y_max < 240
        assert 5.0 < 2.0 * np.sqrt(own.sum() / np.pi) * smear.um_per_px < 20.0


def test_smear_is_a_function_of_its_arguments() -> None:
    one, same, other = (render_smear(seed, (128, 160), 1, 10) for seed in (5, 5, 6))
    np.testing.assert_array_equal(one.image, same.image)
    np.testing.assert_array_equal(one.cell_labels, same.cell_labels)
    assert (one.image != other.image).any()
    empty = render_smear(5, (64, 64), 0, 5)
    assert empty.boxes.shape == (0, 4)
    assert empty.attributes.shape == (0, 11)
    assert not empty.cell_labels.any()


def test_red_cells_add_to_the_field() -> None:
    crowded, sparse = (render_smear(5, (160, 160), 1, count).image.mean() for count in (20, 0))
    assert crowded < sparse - 5.0

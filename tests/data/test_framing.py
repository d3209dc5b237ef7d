"""Framing against plain arithmetic, and the nucleus framing against annotated smears."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from wbc_jax.data.decode import read_image
from wbc_jax.data.framing import FRAMINGS, Framing, frame_image
from wbc_jax.data.nucleus import nucleus_box


def smooth(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    channels = [255 * x / max(1, width - 1), 255 * y / max(1, height - 1), np.full((height, width), 77)]
    return np.stack(channels, axis=2).astype(np.uint8)


def smear(size: tuple[int, int], centre: tuple[int, int], radius: int) -> np.ndarray:
    """Pinkish red cells on a pale background, and one purple nucleus."""
    height, width = size
    y, x = np.mgrid[:height, :width]
    image = np.full((height, width, 3), (235, 230, 235), np.uint8)
    for cy in range(30, height, 60):
        for cx in range(30, width, 60):
            image[(y - cy) ** 2 + (x - cx) ** 2 < 20**2] = (215, 160, 150)
    image[(y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2] = (95, 45, 140)
    return image


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 50), (50, 1), (7, 5), (240, 320), (363, 360), (96, 96), (3, 2000)]
)
@pytest.mark.parametrize("size_px", [1, 17, 96])
def test_any_shape_becomes_a_square(framing: Framing, shape: tuple[int, int], size_px: int) -> None:
    image = smooth(*shape)
    before = image.copy()
    found = frame_image(image, size_px, framing)
    assert found.shape == (size_px, size_px, 3)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(found[..., 2], 77)


@pytest.mark.parametrize("framing", ["squash", "pad", "crop"])
def test_right_size_is_left_alone(framing: Framing) -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    found = frame_image(image, 32, framing)
    np.testing.assert_array_equal(found, image)
    assert not np.shares_memory(found, image)


def test_squash_keeps_both_sides_to_the_edge() -> None:
    found = frame_image(smooth(240, 320), 64, "squash")
    assert found[32, 0, 0] < 6
    assert found[32, -1, 0] > 249
    assert found[0, 32, 1] < 6
    assert found[-1, 32, 1] > 249


def test_crop_is_the_centre() -> None:
    found = frame_image(smooth(240, 320), 64, "crop").astype(int)
    assert abs(found[32, 0, 0] - 255 * 40 / 319) < 4
    assert abs(found[32, -1, 0] - 255 * 279 / 319) < 4
    assert found[0, 32, 1] < 6


def test_pad_keeps_the_shape_and_fills_with_the_border_colour() -> None:
    image = np.full((60, 120, 3), (200, 180, 190), np.uint8)
    image[20:40, 40:80] = (90, 40, 140)
    found = frame_image(image, 60, "pad")
    assert (found[:15] == (200, 180, 190)).all()
    assert (found[45:] == (200, 180, 190)).all()
    inside = (np.abs(found.astype(int) - (90, 40, 140)).max(axis=2) < 30).nonzero()
    assert (inside[0].min(), inside[0].max()) == (25, 34)
    assert (inside[1].min(), inside[1].max()) == (20, 39)


@pytest.mark.parametrize("framing", ["squash", "pad", "crop"])
def test_shrinking_averages(framing: Framing) -> None:
    """A one-pixel chequerboard becomes its mean, not a pattern that is not there."""
    board = (np.indices((512, 512)).sum(0) % 2 * 255).astype(np.uint8)
    found = frame_image(np.repeat(board[..., None], 3, axis=2), 60, framing).astype(int)
    assert np.abs(found - 127.5).max() < 6


def test_shrinking_equals_scikit_image() -> None:
    from skimage.transform import resize

    image = np.random.default_rng(0).integers(0, 256, (40, 52, 3), dtype=np.uint8)
    image = np.kron(image, np.ones((6, 6, 1), np.uint8))
    expected = resize(image, (60, 60), order=3, anti_aliasing=True, preserve_range=True)
    found = frame_image(image, 60, "squash").astype(float)
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.95


@pytest.mark.parametrize(
    ("centre", "radius"), [((120, 160), 30), ((30, 300), 25), ((225, 40), 35), ((200, 290), 15)]
)
def test_nucleus_box_surrounds_the_nucleus(centre: tuple[int, int], radius: int) -> None:
    for scale in (1, 3):
        size = (240 * scale, 320 * scale)
        box = nucleus_box(smear(size, (centre[0] * scale, centre[1] * scale), radius * scale))
        assert box is not None
        x0, y0, x1, y1 = box
        assert x1 - x0 == y1 - y0
        assert x0 >= 0
        assert y0 >= 0
        assert x1 <= size[1]
        assert y1 <= size[0]
        cy, cx = centre[0] * scale, centre[1] * scale
        for corner_y in (max(0, cy - radius * scale), min(size[0], cy + radius * scale)):
            assert y0 - 3 * scale <= corner_y <= y1 + 3 * scale
        assert x0 <= cx <= x1
        assert 1.5 * radius * scale < x1 - x0 < 6.5 * radius * scale


def test_the_largest_nucleus_is_taken() -> None:
    image = smear((300, 400), (80, 80), 18)
    y, x = np.mgrid[:300, :400]
    image[(y - 210) ** 2 + (x - 300) ** 2 < 34**2] = (95, 45, 140)
    box = nucleus_box(image)
    assert box is not None
    assert abs((box[0] + box[2]) / 2 - 300) < 15


def test_black_corners_are_no_nucleus() -> None:
    """Rotated copies, as in the augmented BCCD, have black corners larger than any nucleus."""
    image = smear((240, 320), (120, 200), 28)
    y, x = np.mgrid[:240, :320]
    image[x + y < 130] = 0
    image[(319 - x) + y < 90] = 0
    box = nucleus_box(image)
    assert box is not None
    assert abs((box[0] + box[2]) / 2 - 200) < 15


def test_without_a_nucleus_the_centre_is_kept() -> None:
    without = smear((240, 320), (-500, -500), 5)
    assert nucleus_box(without) is None
    np.testing.assert_array_equal(frame_image(without, 64, "nucleus"), frame_image(without, 64, "crop"))
    for blank in (np.zeros((50, 80, 3), np.uint8), np.full((50, 80, 3), 255, np.uint8)):
        assert nucleus_box(blank) is None


@pytest.mark.parametrize(
    ("image", "size_px", "framing", "message"),
    [
        (np.zeros((8, 8, 3)), 4, "squash", "uint8"),
        (np.zeros((8, 8), np.uint8), 4, "squash", "uint8"),
        (np.zeros((0, 8, 3), np.uint8), 4, "squash", "uint8"),
        (np.zeros((8, 8, 3), np.uint8), 0, "squash", "size_px"),
        (np.zeros((8, 8, 3), np.uint8), 4, "stretch", "no framing 'stretch'"),
    ],
)
def test_wrong_arguments(image: np.ndarray, size_px: int, framing: Framing, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        frame_image(image, size_px, framing)


@pytest.mark.real_data
def test_nucleus_framing_finds_the_annotated_white_cells(data_dir: Path) -> None:
    """Boxes drawn by people in BCCD: of 289 images, the square holds a white cell's centre in all (2026)."""
    folder = data_dir / "bccd_voc" / "BCCD"
    hits = total = 0
    for annotation in sorted((folder / "Annotations").glob("*.xml"))[::5]:
        boxes = [
            [int(box.findtext(f"bndbox/{key}", "")) for key in ("xmin", "ymin", "xmax", "ymax")]
            for box in ElementTree.parse(annotation).findall("object")
            if box.findtext("name") == "WBC"
        ]
        if not boxes:
            continue
        found = nucleus_box(read_image(folder / "JPEGImages" / f"{annotation.stem}.jpg"))
        centres = [((x0 + x1) / 2, (y0 + y1) / 2) for x0, y0, x1, y1 in boxes]
        hits += found is not None and any(
            found[0] <= x <= found[2] and found[1] <= y <= found[3] for x, y in centres
        )
        total += 1
    assert total > 40
    assert hits >= 0.97 * total

"""Copies of one microscope field are found by their pixels: turned, sheared, shifted, mirrored, saved as JPEG again."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.transform import AffineTransform, warp

from wbc_jax.config import DataConfig
from wbc_jax.data.datasets.bccd_voc.bccd_voc_dataset_builder import image_classes
from wbc_jax.data.datasets.fields import read_field, with_fields
from wbc_jax.data.datasets.scan import RawImage, Scan
from wbc_jax.data.experiment import load_experiment
from wbc_jax.data.keypoints import SAME_FIELD_INLIERS, agreeing_keypoints, describe
from wbc_jax.data.packed import open_store
from wbc_jax.data.prepare import prepare
from wbc_jax.data.smear_fields import group_fields, likely_pairs
from wbc_jax.data.splits import check_leaks, make_split

FIELDS, COPIES = 6, 4


def draw_field(seed: int, height: int = 120, width: int = 160) -> np.ndarray:
    """Red cells with pale centres and one violet nucleus on a bright ground, uint8 `(H, W, 3)`."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    picture = np.full((height, width, 3), (225.0, 215.0, 220.0))
    for _ in range(26):
        row, column, radius = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(6, 11)
        stretch, turn = rng.uniform(0.7, 1.4), rng.uniform(0, np.pi)
        y, x = rows - row, columns - column
        distance = np.hypot(
            (x * np.cos(turn) + y * np.sin(turn)) * stretch, y * np.cos(turn) - x * np.sin(turn)
        )
        colour = np.array([200.0, 140.0, 130.0]) + rng.uniform(-15, 15, 3)
        picture[distance < radius] = colour
        picture[distance < radius * rng.uniform(0.2, 0.5)] = colour + 35
    row, column = rng.uniform(0.3, 0.7) * height, rng.uniform(0.3, 0.7) * width
    for _ in range(4):
        lobe = np.hypot(rows - row - rng.uniform(-8, 8), columns - column - rng.uniform(-8, 8))
        picture[lobe < rng.uniform(5, 9)] = (110.0, 70.0, 160.0)
    return np.clip(picture + rng.normal(0, 4, picture.shape), 0, 255).astype(np.uint8)


def copy_of(picture: np.ndarray, seed: int) -> np.ndarray:
    """As the Kaggle release made them: turned by up to 20 degrees on black, sheared, shifted, mirrored."""
    rng = np.random.default_rng(seed)
    height, width = picture.shape[:2]
    moved = AffineTransform(
        rotation=np.deg2rad(rng.uniform(-20, 20)),
        shear=np.deg2rad(rng.uniform(-8, 8)),
        translation=(rng.uniform(-0.1, 0.1) * width, rng.uniform(-0.1, 0.1) * height),
    )
    to_centre = AffineTransform(translation=(width / 2, height / 2))
    whole = AffineTransform(matrix=to_centre.params @ moved.params @ np.linalg.inv(to_centre.params))
    out = (warp(picture, whole.inverse, order=1) * 255).astype(np.uint8)
    return out[:: rng.choice([1, -1]), :: rng.choice([1, -1])]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of three fields, each copied, and in the second class one image without a copy."""
    root = tmp_path_factory.mktemp("bccd") / "images" / "TRAIN"
    for number in range(FIELDS + 1):
        home = root / ("EOSINOPHIL" if number < FIELDS / 2 else "LYMPHOCYTE")
        home.mkdir(parents=True, exist_ok=True)
        field = draw_field(number)
        for copy in range(COPIES if number < FIELDS else 1):
            # Names that do not tell the field, as in the original.
            name = f"_{copy}_{(7 * number + 5 * copy) % 100}{number}.jpeg"
            Image.fromarray(copy_of(field, 100 * number + copy)).save(home / name, quality=80)
    return root.parent


def truth(name: str) -> int:
    return int(Path(name).stem[-1])


def raw_images(folder: Path) -> list[RawImage]:
    paths = sorted(folder.rglob("*.jpeg"))
    return [RawImage(id=p.relative_to(folder).as_posix(), path=p, cell_class="x") for p in paths]


def test_groups_are_the_fields(folder: Path) -> None:
    images = raw_images(folder)
    scan = with_fields(Scan(images=images), {})
    for one in scan.images:
        alike = {image.id for image in images if truth(image.id) == truth(one.id)}
        found = {image.id for image in scan.images if image.group and image.group == one.group}
        assert found == (alike if len(alike) > 1 else set()), one.id
        assert not one.group or one.group == min(alike)
    assert scan.notes == ["24 images show 6 fields of which there is another picture; 1 stand alone"]


def test_an_original_names_its_group_and_takes_in_a_single_copy(folder: Path, tmp_path: Path) -> None:
    originals = {}
    for number in (1, FIELDS):
        path = tmp_path / f"BloodImage_{number:05}.jpg"
        Image.fromarray(draw_field(number)).resize((640, 480), Image.Resampling.BICUBIC).save(path)
        originals[path.stem] = path
    scan = with_fields(Scan(images=raw_images(folder)), originals)
    for image in scan.images:
        number = truth(image.id)
        if number in (1, FIELDS):
            assert image.group == f"BloodImage_{number:05}"
        else:
            assert not image.group.startswith("BloodImage")


def test_an_unreadable_file_stands_alone(folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "_0_1.jpeg"
    broken.write_bytes(b"not an image")
    images = [*raw_images(folder)[:4], RawImage(id="_0_1.jpeg", path=broken, cell_class="x")]
    assert with_fields(Scan(images=images), {}).images[-1].group == ""


def test_different_fields_agree_on_little_and_copies_on_much() -> None:
    fields = [describe(draw_field(number)) for number in range(4)]
    copies = [describe(copy_of(draw_field(number), number)) for number in range(4)]
    for i, field in enumerate(fields):
        for j, copy in enumerate(copies):
            agreeing = agreeing_keypoints(field, copy)
            assert agreeing > 1.5 * SAME_FIELD_INLIERS if i == j else agreeing < SAME_FIELD_INLIERS


def test_a_mirrored_copy_is_found_and_black_corners_are_no_keypoints() -> None:
    field = draw_field(3)
    assert agreeing_keypoints(describe(field), describe(field[:, ::-1])) > 40
    assert len(describe(np.zeros((120, 160, 3), np.uint8)).plain.places) == 0
    framed = np.zeros((120, 160, 3), np.uint8)
    framed[40:80, 50:110] = 200  # its corners are those of the black around it
    assert len(describe(framed).plain.places) == 0


def test_known_groups_are_not_proven_again_and_order_does_not_matter() -> None:
    pictures = [copy_of(draw_field(number), 10 * number + copy) for number in range(3) for copy in range(5)]
    fields = [describe(picture) for picture in pictures]
    calls = []

    def agree(one, other):
        calls.append((one, other))
        return agreeing_keypoints(one, other)

    np.testing.assert_array_equal(group_fields(fields, agree=agree), np.repeat([0, 5, 10], 5))
    assert len(calls) < len(likely_pairs(fields)[0])
    order = np.random.default_rng(0).permutation(15)
    roots = group_fields([fields[i] for i in order])
    together = roots[:, None] == roots[None, :]
    np.testing.assert_array_equal(together, (order // 5)[:, None] == (order // 5)[None, :])


def test_no_images_and_one_image_have_no_pairs() -> None:
    one = [describe(draw_field(0))]
    assert group_fields([]).shape == (0,)
    assert group_fields(one).tolist() == [0]


def test_a_random_split_of_the_prepared_set_keeps_copies_together(folder: Path, tmp_path: Path) -> None:
    store = open_store(prepare("bccd_kaggle", raw_dir=folder, cache_dir=tmp_path, size_px=16))
    samples = store.samples
    assert len(set(samples.groups)) == FIELDS + 1
    labels = samples.cell_class
    split = make_split(samples, labels, "random_311", 0)
    parts = [{truth(name) for name in ids} for ids in (split.train_ids, split.val_ids, split.test_ids)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == FIELDS + 1
    assert not check_leaks(split, samples)
    by_image = DataConfig(
        dataset="bccd_kaggle", raw_dir=str(folder), cache_dir=str(tmp_path), image_size_px=16, store_size_px=16,
        split="random_311", split_by="image",
    )  # fmt: skip
    leaking = load_experiment(by_image).split
    assert check_leaks(leaking, samples)
    assert load_experiment(dataclasses.replace(by_image, split_by="group")).split.digest == split.digest


def test_a_field_is_read_at_one_size(folder: Path) -> None:
    field = read_field(raw_images(folder)[0].path)
    assert field.plain.places[:, 0].max() < 120
    assert field.plain.places[:, 1].max() < 160


def test_the_label_table_tells_the_classes_of_an_original(tmp_path: Path) -> None:
    table = ',Image,Category\n,0,NEUTROPHIL\n,7,\n,12,"EOSINOPHIL, LYMPHOCYTE"\n'
    (tmp_path / "labels.csv").write_text(table)
    classes = image_classes(tmp_path)
    assert classes["BloodImage_00000"] == {"neutrophil"}
    assert classes["BloodImage_00012"] == {"eosinophil", "lymphocyte"}
    assert classes["BloodImage_00007"] == set()

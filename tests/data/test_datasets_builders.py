"""Every builder end to end on its dummy data, without TensorFlow, and what is particular to each data set."""

from __future__ import annotations

import csv
import hashlib
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core import dataset_metadata

from wbc_jax.catalog import ATTRIBUTES, CELL_CLASSES
from wbc_jax.data import datasets
from wbc_jax.data.datasets.scan import NO_ATTRIBUTES
from wbc_jax.data.decode import decode_image
from wbc_jax.data.registry import DATASETS, builder_class, find_raw
from wbc_jax.errors import DataError

PACKAGES = Path(datasets.__path__[0])
EXPECTED: dict[str, dict[str, int]] = {
    "pbc": {"train": 5, "val": 5, "test": 5, "unsplit": 3},
    "bccd_kaggle": {"train": 8, "test": 4, "simple": 4},
    "bccd_voc": {"unsplit": 4},
    "lisc": {"unsplit": 10},
    "raabin": {"train": 10, "test": 5, "test_b": 5},
    "ldwbc": {"unsplit": 10},
    "labelled": {"unsplit": 18},
    "wbcs": {"unsplit": 8},
    "jtsc": {"unsplit": 5},
    "image_folder": {"train": 4, "val": 2, "test": 2},
}
"""Examples per TFDS split in the dummy data, counted by hand when it was made."""


def dummy(name: str) -> Path:
    return PACKAGES / name / "dummy_data"


def build(name: str, raw: Path, target: Path) -> Any:
    builder = builder_class(name)(data_dir=str(target))
    config = tfds.download.DownloadConfig(manual_dir=str(raw), try_download_gcs=False)
    builder.download_and_prepare(download_config=config)
    return builder


def read(builder: Any) -> list[dict[str, Any]]:
    source = builder.as_data_source("all", decoders={"image": tfds.decode.SkipDecoding()})
    return [source[row] for row in range(len(source))]


def test_tensorflow_is_not_needed(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from wbc_jax.data.prepare import prepare\n"
        f"prepare('lisc', raw_dir={str(dummy('lisc'))!r}, cache_dir={str(tmp_path)!r}, size_px=16)\n"
        "assert 'tensorflow' not in sys.modules"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", EXPECTED)
def test_builder_prepares_its_dummy_data(name: str, tmp_path: Path) -> None:
    raw = find_raw(name, dummy(name))
    builder = build(name, raw, tmp_path)
    assert {split: info.num_examples for split, info in builder.info.splits.items()} == EXPECTED[name]
    assert builder.info.file_format.value == "array_record"
    ids = set()
    for example in read(builder):
        image = decode_image(example["image"], example["id"].decode())
        identity, _, box = example["id"].decode().partition("#")
        original = (raw / identity).read_bytes()
        if box:
            x0, y0, x1, y1 = map(int, box.split(","))
            np.testing.assert_array_equal(image, decode_image(original, "whole")[y0:y1, x0:x1])
        else:
            assert example["image"] == original
            assert example["sha256"].decode() == hashlib.sha256(original).hexdigest()
        classes = DATASETS[name].classes or ("neutrophil", "reactive lymphocyte")
        assert example["cell_class"].decode() in classes
        assert example["attributes"].shape == (11,)
        ids.add(example["id"])
    assert len(ids) == sum(EXPECTED[name].values())


@pytest.mark.parametrize("name", DATASETS)
def test_package_is_laid_out_as_tfds_new_does(name: str) -> None:
    folder = PACKAGES / name
    for file in ("__init__.py", f"{name}_dataset_builder.py", "checksums.tsv"):
        assert (folder / file).is_file(), file
    builder = builder_class(name)
    assert builder.name == name
    metadata = builder.get_metadata()
    assert f"{{{DATASETS[name].citation}," in metadata.citation
    assert metadata.description.startswith("# ")
    assert metadata.tags
    assert set(metadata.tags) <= set(dataset_metadata.valid_tags())
    if not DATASETS[name].generated:
        assert DATASETS[name].source in builder.MANUAL_DOWNLOAD_INSTRUCTIONS
    for path in (folder / "dummy_data").rglob("*"):
        assert path.is_dir() or path.stat().st_size < 4000, "dummy files are tiny"
    assert set(DATASETS[name].classes) <= set(CELL_CLASSES)
    assert set(DATASETS[name].expected) <= set(DATASETS[name].classes)


def test_expected_counts_add_up() -> None:
    for name, facts in DATASETS.items():
        if facts.expected:
            assert sum(facts.expected.values()) == facts.expected_total, name


def test_pbc_joins_attributes_by_name_and_value(tmp_path: Path) -> None:
    raw = find_raw("pbc", dummy("pbc"))
    examples = {Path(e["id"].decode()).name: e for e in read(build("pbc", raw, tmp_path))}
    lines = 0
    for split in ("train", "val", "test"):
        with (dummy("pbc") / f"pbc_attr_v1_{split}.csv").open(newline="") as file:
            for line in csv.DictReader(file):
                example = examples.pop(line["img_name"])
                assert example["source_split"].decode() == split
                values = [a.values[i] for a, i in zip(ATTRIBUTES, example["attributes"], strict=True)]
                assert values == [line[attribute.name] for attribute in ATTRIBUTES]
                lines += 1
    assert lines == 15
    for rest in examples.values():
        assert rest["source_split"] == b""
        assert tuple(rest["attributes"]) == NO_ATTRIBUTES


@pytest.fixture
def pbc(tmp_path: Path) -> Path:
    """A copy of the dummy archive, to be spoilt."""
    return Path(shutil.copytree(dummy("pbc"), tmp_path / "pbc"))


def test_pbc_flaws_are_left_out_with_reasons(pbc: Path) -> None:
    folder = pbc / "PBC_dataset_normal_DIB"
    picture = Image.fromarray(np.arange(768, dtype=np.uint8).reshape(16, 16, 3))
    picture.save(folder / "neutrophil" / "BNE_191112.jpg")
    shutil.copy(folder / "neutrophil" / "BNE_191112.jpg", folder / "eosinophil" / "EO_225902.jpg")
    (folder / "neutrophil" / ".DS_169665.jpg").write_bytes(b"\0\0\0\1Bud1")
    twin = next(iter(sorted((folder / "monocyte").glob("*.jpg"))))
    shutil.copy(twin, folder / "monocyte" / "MO_999999.jpg")
    raw = find_raw("pbc", pbc)
    scan = builder_class("pbc")(data_dir=str(pbc / "cache")).collect(raw)
    assert len(scan.images) == 18
    assert scan.problems == []
    reasons = {flaw.id: flaw.reason for flaw in scan.skipped}
    assert set(reasons) == {
        "neutrophil/BNE_191112.jpg",
        "eosinophil/EO_225902.jpg",
        "neutrophil/.DS_169665.jpg",
        "monocyte/MO_999999.jpg",
    }
    assert "different classes" in reasons["eosinophil/EO_225902.jpg"]
    assert reasons["monocyte/MO_999999.jpg"] == f"duplicate of monocyte/{twin.name}"


@pytest.mark.parametrize("inside", [".", "PBC_dataset_normal_DIB"])
def test_pbc_finds_its_tables_from_wherever_it_is_pointed_at(pbc: Path, inside: str) -> None:
    scan = builder_class("pbc").scan(find_raw("pbc", pbc / inside))
    assert Counter(image.source_split for image in scan.images) == {"train": 5, "val": 5, "test": 5, "": 3}
    assert scan.notes == []


def test_pbc_without_tables_has_neither_attributes_nor_split(pbc: Path) -> None:
    for table in pbc.glob("*.csv"):
        table.unlink()
    scan = builder_class("pbc").scan(find_raw("pbc", pbc))
    assert len(scan.images) == 18
    assert {image.source_split for image in scan.images} == {""}
    assert "WBCAtt tables not found" in scan.notes[0]


def test_pbc_table_faults_are_all_listed(pbc: Path) -> None:
    table = pbc / "pbc_attr_v1_val.csv"
    table.write_text(table.read_text().replace(",round,", ",angular,"))
    faulty = table.read_text().count(",angular,")
    shutil.copy(pbc / "pbc_attr_v1_train.csv", pbc / "pbc_attr_v1_test.csv")
    with pytest.raises(DataError) as caught:
        builder_class("pbc").scan(find_raw("pbc", pbc))
    message = str(caught.value)
    assert message.count("has no value 'angular'") == faulty > 0
    assert message.count("occurs twice") == 5


def test_pbc_image_that_the_table_calls_otherwise_is_a_problem(pbc: Path) -> None:
    table = pbc / "pbc_attr_v1_train.csv"
    table.write_text(table.read_text().replace("Basophil,", "Monocyte,", 1))
    scan = builder_class("pbc").scan(find_raw("pbc", pbc))
    assert [flaw.reason for flaw in scan.problems] == ["WBCAtt calls it monocyte"]


def test_bccd_voc_uses_an_image_only_when_its_labels_agree() -> None:
    scan = builder_class("bccd_voc").scan(find_raw("bccd_voc", dummy("bccd_voc")))
    by_group = Counter((image.group, image.cell_class) for image in scan.images)
    assert by_group == {
        ("BloodImage_00000", "neutrophil"): 1,
        ("BloodImage_00001", "eosinophil"): 1,
        ("BloodImage_00002", "neutrophil"): 2,  # labelled "NEUTROPHIL, NEUTROPHIL"
    }
    assert {flaw.id[-9:-4]: flaw.reason for flaw in scan.skipped} == {
        "00003": "labels.csv names EOSINOPHIL, NEUTROPHIL",
        "00004": "no class in labels.csv",
    }
    # Box 6, 5, 18, 16: the margin is a tenth of 12 px.
    assert scan.images[0].box == (5, 4, 19, 17)


def test_bccd_voc_margin_ends_at_the_image() -> None:
    scan = builder_class("bccd_voc").scan(find_raw("bccd_voc", dummy("bccd_voc")))
    assert scan.images[-1].box == (19, 9, 32, 24)


def test_bccd_voc_without_labels_says_where_they_are_looked_for(tmp_path: Path) -> None:
    shutil.copytree(dummy("bccd_voc") / "BCCD", tmp_path / "a" / "b" / "BCCD")
    with pytest.raises(DataError, match=r"labels\.csv in .*BCCD"):
        builder_class("bccd_voc").scan(find_raw("bccd_voc", tmp_path / "a" / "b"))


def test_bccd_voc_damaged_files_are_problems(tmp_path: Path) -> None:
    shutil.copytree(dummy("bccd_voc"), tmp_path, dirs_exist_ok=True)
    (tmp_path / "BCCD" / "JPEGImages" / "BloodImage_00000.jpg").write_bytes(b"\xff\xd8 broken")
    bomb = '<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>'
    (tmp_path / "BCCD" / "Annotations" / "BloodImage_00001.xml").write_text(bomb)
    scan = builder_class("bccd_voc").scan(find_raw("bccd_voc", tmp_path))
    assert [flaw.id for flaw in scan.problems] == [
        "JPEGImages/BloodImage_00000.jpg",
        "Annotations/BloodImage_00001.xml",
    ]


def test_jtsc_reads_the_original_layout_and_the_png_one(tmp_path: Path) -> None:
    original = builder_class("jtsc").scan(find_raw("jtsc", dummy("jtsc")))
    expected = {1: "neutrophil", 2: "lymphocyte", 3: "monocyte", 4: "eosinophil", 5: "basophil"}
    assert {int(Path(i.id).stem): i.cell_class for i in original.images} == expected
    assert all(image.path.suffix == ".bmp" for image in original.images)
    shutil.copytree(dummy("jtsc"), tmp_path / "jtsc")
    folder = tmp_path / "jtsc" / "Dataset 1"
    for path in sorted(folder.glob("*.png")):
        path.rename(folder / f"{path.stem}_mask.png")
    for path in sorted(folder.glob("*.bmp")):
        Image.open(path).save(folder / f"{path.stem}.png")
        path.unlink()
    converted = builder_class("jtsc").scan(find_raw("jtsc", tmp_path))
    assert [Path(image.id).name for image in converted.images] == [f"{n:03d}.png" for n in range(1, 6)]


def test_image_folder_keeps_unknown_names_and_finds_slips(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in (
        "train/Neutrophils/p1/a.png",
        "train/blast cell/b.png",
        "test/neu/c.png",
        "test/blastcell/d.png",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path)
    scan = builder_class("image_folder").scan(find_raw("image_folder", tmp_path))
    found = {image.id: (image.cell_class, image.source_split, image.group) for image in scan.images}
    assert found["train/Neutrophils/p1/a.png"] == ("neutrophil", "train", "p1")
    assert found["train/blast cell/b.png"] == ("blast cell", "train", "")
    assert found["test/neu/c.png"] == ("neutrophil", "test", "")
    assert [flaw.id for flaw in scan.problems] == ["test/blastcell/d.png"]
    assert "did you mean blast cell?" in scan.problems[0].reason


def test_synthetic_smear_is_drawn_the_same_every_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builder_class("synthetic_smear"), "COUNTS", {"train": 6, "val": 2, "test": 4})
    first = read(build("synthetic_smear", tmp_path, tmp_path / "a"))
    second = read(build("synthetic_smear", tmp_path, tmp_path / "b"))
    assert [e["image"] for e in first] == [e["image"] for e in second]
    assert len({e["sha256"] for e in first}) == 12
    assert Counter(e["source_split"] for e in first) == {b"train": 6, b"val": 2, b"test": 4}
    for example in first:
        assert decode_image(example["image"], "synthetic").shape == (96, 96, 3)
        values = dict(zip(ATTRIBUTES, example["attributes"], strict=True))
        assert all(0 <= value < len(attribute.values) for attribute, value in values.items())


def test_plain_synthetic_smears_are_other_cells_without_attributes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = {"train": 6, "val": 2, "test": 4}
    for name in ("synthetic_smear", "synthetic_smear_plain"):
        monkeypatch.setattr(builder_class(name), "COUNTS", counts)
    plain = read(build("synthetic_smear_plain", tmp_path, tmp_path / "a"))
    annotated = read(build("synthetic_smear", tmp_path, tmp_path / "b"))
    assert all((example["attributes"] == -1).all() for example in plain)
    assert Counter(e["source_split"] for e in plain) == {b"train": 6, b"val": 2, b"test": 4}
    assert not {e["sha256"] for e in plain} & {e["sha256"] for e in annotated}


@pytest.mark.real_data
def test_real_archives_hold_what_their_readme_counts(data_dir: Path) -> None:
    def counts(name: str) -> Counter[tuple[str, str]]:
        scan = builder_class(name).scan(find_raw(name, data_dir))
        return Counter((image.cell_class, image.source_split) for image in scan.images)

    pbc = counts("pbc")
    assert sum(pbc.values()) == 8192
    by_split = Counter[str]()
    for (_, split), n in pbc.items():
        by_split[split] += n
    assert by_split == {"train": 6124, "val": 1028, "test": 500, "": 540}
    assert {c: n for (c, split), n in pbc.items() if split == "test"} == dict.fromkeys(CELL_CLASSES[:5], 100)
    four = ("eosinophil", "lymphocyte", "monocyte", "neutrophil")
    assert counts("bccd_kaggle") == {(name, "train"): 500 for name in four}
    lisc = {"basophil": 39, "eosinophil": 30, "lymphocyte": 40, "monocyte": 35, "neutrophil": 40}
    assert counts("lisc") == {(name, ""): n for name, n in lisc.items()}
    assert counts("jtsc") == {(name, ""): n for name, n in DATASETS["jtsc"].expected.items()}
    assert sum(counts("bccd_voc").values()) == 287


@pytest.mark.real_data
def test_known_duplicates_of_real_pbc_are_found(data_dir: Path, tmp_path: Path) -> None:
    raw = find_raw("pbc", data_dir)
    copy = tmp_path / "PBC_dataset_normal_DIB"
    for cell_class in ("basophil", "eosinophil"):
        shutil.copytree(raw / cell_class, copy / cell_class)
    scan = builder_class("pbc")(data_dir=str(tmp_path / "cache")).collect(find_raw("pbc", tmp_path))
    pairs = {frozenset((Path(f.id).name, f.reason.rsplit("/", 1)[-1])) for f in scan.skipped}
    assert frozenset(("BA_20201.jpg", "BA_809918.jpg")) in pairs
    assert len(pairs) == 9

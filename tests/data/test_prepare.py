"""Preparing: what comes out, what a second call costs, and how it fails."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from wbc_jax.data import datasets, ingest
from wbc_jax.data import prepare as prepare_module
from wbc_jax.data.packed import open_store, verify_store
from wbc_jax.data.prepare import locate, prepare
from wbc_jax.data.registry import DATASETS, cache_root, dataset_info, default_protocol, find_raw
from wbc_jax.errors import DataError, UsageError

SIZE_PX = 16
CLASSES = ("basophil", "monocyte")


def save_image(path: Path, rng: np.random.Generator) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve own images of two classes with a supplied split."""
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for name in CLASSES:
            for n in range(2):
                save_image(tmp_path / "raw" / split / name / f"{n}.png", rng)
    return tmp_path / "raw"


def prepare_folder(raw: Path, **options: Any) -> Path:
    return prepare("image_folder", raw_dir=raw, size_px=SIZE_PX, **options)


def test_store_holds_the_images_with_their_labels(folder: Path, cache_dir: Path) -> None:
    store = open_store(prepare_folder(folder))
    assert store.directory.is_relative_to(cache_dir)
    assert store.class_names == CLASSES
    assert verify_store(store.directory) == []
    assert len(store) == 12
    assert Counter(store.samples.source_splits) == {"train": 4, "val": 4, "test": 4}
    row = store.samples.ids.index("val/monocyte/1.png")
    assert store.class_names[store.samples.cell_class[row]] == "monocyte"
    with Image.open(folder / "val/monocyte/1.png") as image:
        expected = np.asarray(image.resize((SIZE_PX, SIZE_PX), Image.Resampling.LANCZOS), np.int32)
    assert np.abs(store.images[row].astype(np.int32) - expected).max() <= 1


@pytest.mark.parametrize("name", [name for name, facts in DATASETS.items() if not facts.generated])
def test_every_data_set_prepares_its_dummy_data(name: str, cache_dir: Path) -> None:
    raw = Path(datasets.__path__[0]) / name / "dummy_data"
    store = open_store(prepare(name, raw_dir=raw, size_px=SIZE_PX, framing=DATASETS[name].framing))
    unused = {"bccd_kaggle": 4, "raabin": 5}.get(name, 0)
    records = {"pbc": 18, "bccd_kaggle": 16, "bccd_voc": 4, "lisc": 10, "raabin": 20, "ldwbc": 10}
    records |= {"labelled": 18, "wbcs": 8, "jtsc": 5, "image_folder": 8}
    assert len(store) == records[name] - unused
    assert set(store.samples.source_splits) <= {"train", "val", "test", ""}


def test_a_second_call_touches_nothing(
    folder: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = prepare_folder(folder)
    before = {path: path.stat().st_mtime_ns for path in cache_dir.rglob("*") if path.name != ".lock"}

    def fail(*args: object, **options: object) -> None:
        raise AssertionError("prepared again")

    monkeypatch.setattr(prepare_module, "write_records", fail)
    monkeypatch.setattr(prepare_module, "framed_samples", fail)
    assert prepare_folder(folder) == store
    assert {path: path.stat().st_mtime_ns for path in cache_dir.rglob("*") if path.name != ".lock"} == before


def test_changed_files_are_prepared_again(folder: Path, cache_dir: Path) -> None:
    first = open_store(prepare_folder(folder)).digest
    (folder / "train/monocyte/0.png").unlink()
    second = open_store(prepare_folder(folder))
    assert len(second) == 11
    save_image(folder / "train/monocyte/0.png", np.random.default_rng(9))
    third = open_store(prepare_folder(folder))
    assert len(third) == 12
    assert len({first, second.digest, third.digest}) == 3


def test_another_size_is_made_from_the_same_records(
    folder: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare_folder(folder)
    monkeypatch.setattr(prepare_module, "write_records", None)
    other = prepare("image_folder", raw_dir=folder, size_px=24, framing="pad")
    assert open_store(other).images.shape == (12, 24, 24, 3)


def test_two_folders_of_own_images_stay_apart(folder: Path, tmp_path: Path, cache_dir: Path) -> None:
    shutil.copytree(folder, tmp_path / "other")
    assert prepare_folder(folder) != prepare_folder(tmp_path / "other")


def test_bad_images_are_listed_together_and_leave_no_store(folder: Path, cache_dir: Path) -> None:
    (folder / "train/monocyte/0.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    whole = (folder / "test/basophil/1.png").read_bytes()
    (folder / "test/basophil/1.png").write_bytes(whole[: len(whole) // 2])
    (folder / "val/basophil/0.png").write_bytes(b"")
    shutil.copy(folder / "val/monocyte/1.png", folder / "val/basophil/9.png")
    for _ in range(2):  # the records are kept, the verdict is not lost
        with pytest.raises(DataError) as caught:
            prepare_folder(folder)
        message = str(caught.value)
        for name in (
            "train/monocyte/0.png",
            "test/basophil/1.png",
            "val/basophil/0.png",
            "val/basophil/9.png",
        ):
            assert f"\n  {name}: " in message
        assert "val/basophil/0.png: empty file" in message
        assert "different classes" in message
        assert "--on-bad-image skip" in message
        assert not list(cache_dir.rglob("store-*"))
        assert not list(cache_dir.rglob(".store-*"))


def test_bad_images_can_be_left_out(folder: Path, cache_dir: Path) -> None:
    (folder / "train/monocyte/0.png").write_bytes(b"not an image")
    store = open_store(prepare_folder(folder, on_bad_image="skip"))
    assert len(store) == 11
    assert "train/monocyte/0.png" not in store.samples.ids
    with pytest.raises(DataError, match=r"train/monocyte/0\.png"):
        prepare_folder(folder)  # a later call that does not allow it still says so
    assert prepare_folder(folder, on_bad_image="skip") == store.directory


def test_a_file_that_changes_while_it_is_read_is_noticed(
    folder: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wbc_jax.data.datasets import base

    scan = base.with_digests

    def scan_then_change(*args: Any, **options: Any) -> Any:
        result = scan(*args, **options)
        save_image(folder / "train/monocyte/0.png", np.random.default_rng(5))
        return result

    monkeypatch.setattr(base, "with_digests", scan_then_change)
    with pytest.raises(DataError, match=r"train/monocyte/0\.png: changed while it was being read"):
        prepare_folder(folder)


def test_no_raw_folder_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WBC_DATA_DIR", raising=False)
    with pytest.raises(DataError) as caught:
        find_raw("pbc")
    message = str(caught.value)
    assert "neither --data.raw-dir nor WBC_DATA_DIR is set" in message
    assert "https://data.mendeley.com/datasets/snkd93bnjr" in message
    assert "PBC_dataset_normal_DIB/<class>" in message


def test_wrong_folder_lists_every_place_and_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "lisc").mkdir()
    (tmp_path / "lisc" / "holiday.jpg").touch()
    with pytest.raises(DataError) as caught:
        find_raw("lisc", tmp_path)
    message = str(caught.value)
    assert f"{tmp_path / 'lisc'}: holds none of baso" in message
    assert "it holds holiday.jpg" in message
    assert f"{tmp_path / 'Main Dataset'}: not there" in message
    assert "--raw-dir" in message
    assert "WBC_DATA_DIR" in message


def test_raw_dir_goes_before_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("a", "b"):
        (tmp_path / place / "lisc" / "baso").mkdir(parents=True)
    monkeypatch.setenv("WBC_DATA_DIR", str(tmp_path / "a"))
    assert find_raw("lisc") == tmp_path / "a" / "lisc"
    assert find_raw("lisc", tmp_path / "b") == tmp_path / "b" / "lisc"
    assert find_raw("lisc", tmp_path / "b" / "lisc") == tmp_path / "b" / "lisc"


def test_cache_is_looked_up_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WBC_CACHE_DIR", str(tmp_path / "a"))
    assert cache_root() == tmp_path / "a"
    assert cache_root(tmp_path / "b") == tmp_path / "b"
    monkeypatch.delenv("WBC_CACHE_DIR")
    assert cache_root().name == "wbc_jax"


def test_unknown_data_set_gets_a_suggestion() -> None:
    with pytest.raises(UsageError, match="did you mean raabin"):
        dataset_info("rabin")


@pytest.mark.parametrize(
    ("name", "splits", "expected"),
    [
        ("pbc", {"train", "val", "test", ""}, "given"),
        ("pbc", {""}, "random_622"),
        ("bccd_kaggle", {"train", "test"}, "given_test"),
        ("bccd_kaggle", {"train"}, "random_622"),
        ("lisc", {""}, "random_311"),
        ("image_folder", {"train", "test"}, "given_test"),
        ("image_folder", {""}, "random_622"),
    ],
)
def test_protocol_falls_back_where_the_archive_lacks_a_split(
    name: str, splits: set[str], expected: str
) -> None:
    assert default_protocol(name, splits) == expected


def test_folders_without_images_or_with_one_class(tmp_path: Path, cache_dir: Path) -> None:
    (tmp_path / "a" / "monocyte").mkdir(parents=True)
    (tmp_path / "a" / "monocyte" / "notes.txt").write_text("nothing here")
    with pytest.raises(DataError, match=r"no images of image_folder found"):
        prepare_folder(tmp_path / "a")
    save_image(tmp_path / "a" / "monocyte" / "0.png", np.random.default_rng(0))
    with pytest.raises(DataError, match="only one class: monocyte"):
        prepare_folder(tmp_path / "a")


def test_too_little_space_is_said_before_anything_is_written(
    folder: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(folder)
    monkeypatch.setattr(ingest.shutil, "disk_usage", lambda path: usage._replace(free=100))
    with pytest.raises(DataError, match=r"MiB are needed, 0 MiB are free"):
        prepare_folder(folder)
    assert not list(cache_dir.rglob("*.array_record*"))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_disk_errors_name_the_place_and_leave_nothing_half_done(
    folder: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(prepare_module, "write_records", fail)
    with pytest.raises(DataError, match="cannot be written") as caught:
        prepare_folder(folder)
    assert str(cache_dir) in caught.value.where
    monkeypatch.undo()
    monkeypatch.setenv("WBC_CACHE_DIR", str(cache_dir))
    assert len(open_store(prepare_folder(folder))) == 12


def test_a_record_that_cannot_be_written_is_a_readable_error(
    folder: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wbc_jax.data.datasets.base import SmearBuilder

    def fail(self: SmearBuilder, *args: object, **options: object) -> None:
        raise RuntimeError(
            f"write() failed: No space left on device; writing {self.data_dir_root}/x; at byte 9"
        )

    monkeypatch.setattr(SmearBuilder, "download_and_prepare", fail)
    with pytest.raises(
        DataError, match=r"cannot be written: write\(\) failed: No space left on device"
    ) as caught:
        prepare_folder(folder)
    assert str(cache_dir) in caught.value.where


@pytest.mark.parametrize("content", ["", "{", "[]", '{"source_digest": "of other files"}'])
def test_damaged_notes_are_made_anew(folder: Path, cache_dir: Path, content: str) -> None:
    store = prepare_folder(folder)
    notes = [store.parent / "source.json", store.with_name(f"{store.name}.json")]
    for note in notes:
        assert note.is_file()
        note.write_text(content)
    assert prepare_folder(folder) == store
    assert all('"source_digest"' in note.read_text() for note in notes)
    assert verify_store(store) == []


def test_cache_below_a_file_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="part of the path is a file"):
        prepare_folder(folder, cache_dir=tmp_path / "file" / "cache")


@pytest.mark.parametrize("stage", ["read", "decode"])
def test_a_killed_preparation_leaves_nothing_in_the_way(folder: Path, cache_dir: Path, stage: str) -> None:
    code = (
        "import sys, time\n"
        "from wbc_jax.data.prepare import prepare\n"
        "def wait(stage, done, total):\n"
        "    if stage == sys.argv[2] and done == 3:\n"
        "        print('here', flush=True)\n"
        "        time.sleep(60)\n"
        "prepare('image_folder', raw_dir=sys.argv[1], size_px=16, progress=wait)\n"
    )
    command = [sys.executable, "-c", code, str(folder), stage]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        process.send_signal(signal.SIGKILL)
    assert not (locate("image_folder", raw_dir=folder).store(SIZE_PX, "squash")).exists()
    store = prepare_folder(folder)
    assert len(open_store(store)) == 12
    assert not list(cache_dir.rglob("*incomplete*"))
    assert not list(cache_dir.rglob("*partial*"))


def test_two_processes_prepare_one_after_the_other(folder: Path, cache_dir: Path) -> None:
    code = (
        "import sys\n"
        "from wbc_jax.data.prepare import prepare\n"
        "print(prepare('image_folder', raw_dir=sys.argv[1], size_px=16))\n"
    )
    command = [sys.executable, "-W", "error", "-c", code, str(folder)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = {process.communicate()[0].strip() for process in running}
    assert [process.returncode for process in running] == [0, 0]
    (store,) = outputs
    assert verify_store(store) == []


@pytest.mark.real_data
def test_real_images_of_several_archives(data_dir: Path, tmp_path: Path, cache_dir: Path) -> None:
    raw = tmp_path / "some"
    for source in sorted((data_dir / "pbc/PBC_dataset_normal_DIB").iterdir()):
        target = raw / "pbc/PBC_dataset_normal_DIB" / source.name
        target.mkdir(parents=True)
        for path in sorted(source.glob("*.jpg"))[:5]:
            shutil.copy(path, target)
    shutil.copytree(data_dir / "wbcatt", raw / "wbcatt")
    store = open_store(prepare("pbc", raw_dir=raw, size_px=64))
    assert len(store) == 40
    assert len(store.class_names) == 8
    annotated = (store.samples.attributes >= 0).all(axis=1)
    assert (annotated == (store.samples.source_splits != "")).all()
    assert 0 < annotated.sum() <= 25
    lisc = open_store(prepare("lisc", raw_dir=data_dir, size_px=64, framing="crop"))
    assert len(lisc) == 184

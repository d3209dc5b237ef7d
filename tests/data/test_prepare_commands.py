"""`wbc-jax data …` as a user sees it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from wbc_jax.commands.data import DataOptions, info, list_datasets, missing, prepare, verify
from wbc_jax.data import datasets, ingest
from wbc_jax.data.prepare import locate
from wbc_jax.data.prepare import prepare as prepare_store
from wbc_jax.data.registry import DATASETS
from wbc_jax.data.store import open_store
from wbc_jax.errors import EXIT_DATA, EXIT_OK, DataError, UsageError
from wbc_jax.runtime.json_files import read_json

DUMMY = Path(datasets.__path__[0]) / "pbc" / "dummy_data"


@pytest.fixture
def options(cache_dir: Path) -> DataOptions:
    return DataOptions(raw_dir=DUMMY, store_size_px=16, processes=0)


def test_list_shows_every_data_set(
    cache_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WBC_DATA_DIR", str(tmp_path))
    assert list_datasets() == EXIT_OK
    output = capsys.readouterr().out
    assert all(name in output for name in DATASETS)
    assert "found" not in output


def test_prepare_and_info_report_counts_missing_and_left_out(
    options: DataOptions, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = Path(shutil.copytree(DUMMY, tmp_path / "pbc"))
    twin = next(iter(sorted((raw / "PBC_dataset_normal_DIB" / "monocyte").glob("*.jpg"))))
    shutil.copy(twin, twin.with_name("MO_999999.jpg"))
    options = DataOptions(raw_dir=raw, store_size_px=16, processes=0)
    assert info("pbc", options) == EXIT_OK
    assert "nothing prepared yet" in capsys.readouterr().out
    assert prepare("pbc", options) == EXIT_OK
    prepared = capsys.readouterr().out
    assert "store: 18 images of 16x16 px (squash)" in prepared
    assert f"duplicate of monocyte/{twin.name}" in prepared
    assert info("pbc", options) == EXIT_OK
    described = capsys.readouterr().out
    assert "https://data.mendeley.com/datasets/snkd93bnjr/1" in described
    row = next(line for line in described.splitlines() if line.split()[:1] == ["monocyte"])
    # train, val, test, no split, all; missing: 1,420 in the full archive, 3 and a duplicate here
    assert row.split()[1:] == ["1", "1", "1", "0", "3", "1,416"]


def test_store_is_the_same_for_threads_and_processes(tmp_path: Path) -> None:
    raw = Path(shutil.copytree(DUMMY, tmp_path / "pbc"))
    cut = next(iter(sorted((raw / "PBC_dataset_normal_DIB" / "monocyte").glob("*.jpg"))))
    cut.write_bytes(cut.read_bytes()[:-200])
    digests, flaws = set(), set()
    for processes in (0, 1, 2):
        store = prepare_store(
            "pbc",
            raw_dir=raw,
            cache_dir=tmp_path / f"cache{processes}",
            size_px=16,
            on_bad_image="skip",
            processes=processes,
            progress=lambda *_: None,
        )
        digests.add(open_store(store).digest)
        flaws.add(str(read_json(store.with_name(f"{store.name}.json"))["bad_images"]))
    assert len(digests) == len(flaws) == 1
    assert cut.name in flaws.pop()


def _die(*_: object) -> None:
    os._exit(1)


def test_process_that_dies_is_an_error_that_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "_framed", _die)
    with pytest.raises(DataError, match="a process that decodes images ended early"):
        prepare_store("pbc", raw_dir=DUMMY, cache_dir=tmp_path, size_px=16, processes=1)
    assert not list(tmp_path.rglob("store-*")), "nothing half done may be left"


def test_missing_counts_only_what_the_published_figure_counts() -> None:
    rows = [("neutrophil", "train", 6231), ("neutrophil", "test", 2660), ("neutrophil", "test_b", 1000)]
    source = {
        "counts": [{"cell_class": c, "source_split": s, "images": n} for c, s, n in rows],
        "skipped": [],
        "problems": [],
    }
    absent = missing(DATASETS["raabin"], source)
    assert "neutrophil" not in absent
    assert absent["basophil"] == 301


def test_info_on_an_absent_archive_says_where_to_get_it(
    cache_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert info("raabin", DataOptions(raw_dir=tmp_path)) == EXIT_OK
    output = capsys.readouterr().out
    assert "not found" in output
    assert "looked at" in output
    assert "https://raabindata.com/free-data/" in output


def test_verify_finds_damage(options: DataOptions, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match="nothing is prepared of pbc"):
        verify("pbc", options)
    prepare("pbc", options)
    capsys.readouterr()
    store = locate("pbc", raw_dir=DUMMY).store(16, "squash")
    assert verify("pbc", options) == EXIT_OK
    assert verify(str(store), options) == EXIT_OK
    assert "sound, 18 images" in capsys.readouterr().out
    with (store / "images.u8").open("r+b") as file:
        file.seek(1000)
        byte = file.read(1)
        file.seek(1000)
        file.write(bytes([byte[0] ^ 1]))
    assert verify("pbc", options) == EXIT_DATA
    assert "damaged" in capsys.readouterr().out


def test_unknown_names_are_refused(options: DataOptions) -> None:
    for action in (info, prepare, verify):
        with pytest.raises(UsageError, match="did you mean pbc"):
            action("pbcc", options)

"""The packed store: what goes in comes out, no damage goes unnoticed, and there is a whole store or none."""

from __future__ import annotations

import errno
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import tracemalloc
from collections import namedtuple
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wbc_jax.catalog import ATTRIBUTES
from wbc_jax.data import packed
from wbc_jax.data.packed import PackedStore, Sample, open_store, verify_store, write_store
from wbc_jax.errors import EXIT_DATA, DataError

CLASSES = ("lymphocyte", "neutrophil", "my own class")
SIZE_PX = 9
KEYWORDS: dict[str, Any] = {
    "size_px": SIZE_PX,
    "framing": "squash",
    "dataset": "toy",
    "class_names": CLASSES,
}
FILES = ("images.u8", "samples.jsonl", "store.json")


def make_samples(n: int = 13, seed: int = 0) -> list[Sample]:
    rng = np.random.default_rng(seed)
    return [
        Sample(
            id=f"folder {i}/zelle_ä\u2028{i}.jpg",
            image=rng.integers(0, 256, (SIZE_PX, SIZE_PX, 3), dtype=np.uint8),
            cell_class=CLASSES[int(rng.integers(3))],
            attributes=tuple(int(rng.integers(-1, len(a.values))) for a in ATTRIBUTES)
            if i % 3
            else (-1,) * 11,
            group=("", f"patient {i % 4}")[i % 2],
            source_split=("", "train", "val", "test")[i % 4],
            sha256=hashlib.sha256(bytes([i])).hexdigest(),
        )
        for i in range(n)
    ]


@pytest.fixture
def store(tmp_path: Path) -> PackedStore:
    return write_store(tmp_path / "cache" / "toy", make_samples(), **KEYWORDS)


def test_round_trip(store: PackedStore) -> None:
    samples = make_samples()
    opened = open_store(store.directory)
    assert len(opened) == len(samples)
    assert (opened.size_px, opened.framing, opened.dataset, opened.class_names) == (
        SIZE_PX,
        "squash",
        "toy",
        CLASSES,
    )
    assert opened.samples.cell_classes == CLASSES
    assert opened.digest == store.digest == opened.samples.store_digest
    assert opened.derived_from is None
    np.testing.assert_array_equal(opened.images, np.stack([s.image for s in samples]))
    assert opened.samples.ids == [s.id for s in samples]
    assert [CLASSES[c] for c in opened.samples.cell_class] == [s.cell_class for s in samples]
    np.testing.assert_array_equal(opened.samples.attributes, [s.attributes for s in samples])
    assert opened.samples.attributes.dtype == opened.samples.cell_class.dtype == np.int32
    assert opened.samples.groups.tolist() == [s.group for s in samples]
    assert opened.samples.source_splits.tolist() == [s.source_split for s in samples]
    assert opened.samples.sha256.tolist() == [s.sha256 for s in samples]
    assert verify_store(store.directory) == []


def test_images_are_a_read_only_map_of_the_file(store: PackedStore) -> None:
    assert isinstance(store.images, np.memmap)
    assert (store.directory / "images.u8").read_bytes() == np.stack(
        [s.image for s in make_samples()]
    ).tobytes()
    with pytest.raises(ValueError, match="read-only"):
        store.images[0] = 0


def test_lines_are_readable_by_anyone(store: PackedStore) -> None:
    lines = (store.directory / "samples.jsonl").read_text().split("\n")
    row, sample = json.loads(lines[5]), make_samples()[5]
    assert row["id"] == sample.id
    assert row["cell_class"] == sample.cell_class
    assert row["group"] == "patient 1"
    assert row["attributes"]["cell_size"] in ("big", "small", None)
    assert json.loads(lines[0])["attributes"] is None
    assert json.loads(lines[0])["source_split"] is None


def test_images_are_framed(tmp_path: Path) -> None:
    wide = np.zeros((20, 40, 3), np.uint8)
    wide[:, 10:30] = 200
    sample = replace(make_samples(1)[0], image=wide)
    squashed = write_store(tmp_path / "a", [sample], **KEYWORDS)
    cropped = write_store(tmp_path / "b", [sample], **(KEYWORDS | {"framing": "crop"}))
    assert squashed.images[0].min() < 20
    assert (cropped.images[0] == 200).all()
    assert cropped.framing == "crop"
    assert squashed.digest != cropped.digest


def test_digest_names_the_content(tmp_path: Path) -> None:
    first = write_store(tmp_path / "first", make_samples(), **KEYWORDS)
    again = write_store(tmp_path / "again", iter(make_samples()), **KEYWORDS)
    assert first.digest == again.digest
    changed = make_samples()
    changed[3] = replace(changed[3], cell_class=CLASSES[0], group="another")
    others = [
        write_store(tmp_path / "labels", changed, **KEYWORDS),
        write_store(tmp_path / "pixels", make_samples(seed=1), **KEYWORDS),
        write_store(tmp_path / "name", make_samples(), **(KEYWORDS | {"dataset": "toy2"})),
        write_store(tmp_path / "order", make_samples()[::-1], **KEYWORDS),
    ]
    assert len({first.digest, *(other.digest for other in others)}) == 5


def damage(directory: Path, rng: np.random.Generator) -> str:
    """One random mutation of one file; returns the name of a file that a report may name."""
    name = str(rng.choice(FILES))
    path = directory / name
    data = bytearray(path.read_bytes())
    kind = rng.choice(["flip", "truncate", "zero", "delete", "swap", "append", "byte", "empty"])
    if kind == "flip":
        data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
    elif kind == "truncate":
        del data[rng.integers(len(data)) :]
    elif kind == "zero":
        start = int(rng.integers(len(data)))
        block = data[start : start + 64]
        if not any(block):
            data[start] = 1
        data[start : start + len(block)] = bytes(len(block)) if any(block) else block
    elif kind == "append":
        data += b"\n"
    elif kind == "byte":
        at = int(rng.integers(len(data)))
        data[at] = (data[at] + 1 + int(rng.integers(255))) % 256
    elif kind == "empty":
        data = bytearray()
    if kind == "delete":
        path.unlink()
    elif kind == "swap":
        other = directory / str(rng.choice([n for n in FILES if n != name]))
        data = bytearray(other.read_bytes())
        other.write_bytes(path.read_bytes())
        path.write_bytes(bytes(data))
    else:
        path.write_bytes(bytes(data))
    return name


def test_every_mutation_is_noticed(store: PackedStore, tmp_path: Path) -> None:
    """Promise R3 for the store: 400 mutations over all files, 0 silent."""
    rng = np.random.default_rng(0)
    for index in range(400):
        copy = tmp_path / "mutated"
        shutil.copytree(store.directory, copy)
        name = damage(copy, rng)
        problems = verify_store(copy)
        assert problems, (index, name)
        shutil.rmtree(copy)


@pytest.mark.parametrize("name", FILES)
def test_each_damaged_file_is_named(store: PackedStore, name: str) -> None:
    path = store.directory / name
    whole = path.read_bytes()
    for changed in (
        whole[:-1],
        whole[: len(whole) // 2] + bytes([whole[len(whole) // 2] ^ 4]) + whole[len(whole) // 2 + 1 :],
    ):
        path.write_bytes(changed)
        problems = verify_store(store.directory)
        assert len(problems) == 1
        assert name in problems[0]
    path.unlink()
    assert name in verify_store(store.directory)[0]


def test_a_flipped_pixel_bit_names_its_image(store: PackedStore) -> None:
    path = store.directory / "images.u8"
    data = bytearray(path.read_bytes())
    data[7 * SIZE_PX * SIZE_PX * 3 + 11] ^= 16
    path.write_bytes(bytes(data))
    assert open_store(store.directory).digest == store.digest  # the quick check does not read pixels
    (problem,) = verify_store(store.directory)
    assert "row 7" in problem
    assert store.samples.ids[7] in problem


def test_verify_reports_progress_and_foreign_files(store: PackedStore) -> None:
    seen: list[tuple[int, int]] = []
    (store.directory / "notes.txt").write_text("mine")
    (problem,) = verify_store(store.directory, lambda done, total: seen.append((done, total)))
    assert "notes.txt" in problem
    assert seen[-1] == (store.images.nbytes, store.images.nbytes)
    assert len(seen) == len(store)


def test_wrong_sizes_and_versions_are_refused_on_opening(store: PackedStore, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="wbc-jax data prepare"):
        open_store(tmp_path / "nothing here")
    assert "no prepared store" in verify_store(tmp_path / "nothing here")[0]
    facts = json.loads((store.directory / "store.json").read_text())
    newer = {key: value for key, value in facts.items() if key != "digest"} | {"version": 2}
    (store.directory / "store.json").write_text(packed.store.store_text(newer))
    with pytest.raises(DataError, match="store version 2"):
        open_store(store.directory)
    with (store.directory / "images.u8").open("ab") as file:
        file.write(b"\0")
    (store.directory / "store.json").write_text(packed.store.store_text({**newer, "version": 1}))
    with pytest.raises(DataError, match=r"bytes instead of 3,159"):
        open_store(store.directory)


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    "error", [RuntimeError("renderer failed"), KeyboardInterrupt(), DataError("bad image")]
)
def test_nothing_is_left_when_the_samples_fail(tmp_path: Path, error: BaseException) -> None:
    def failing() -> Iterator[Sample]:
        yield from make_samples(5)
        raise error

    folder = tmp_path / "cache"
    with pytest.raises(type(error)):
        write_store(folder / "toy", failing(), **KEYWORDS)
    assert leftovers(folder) == []
    former = write_store(folder / "toy", make_samples(4), **KEYWORDS)
    with pytest.raises(type(error)):
        write_store(folder / "toy", failing(), **KEYWORDS)
    assert leftovers(folder) == ["toy"]
    assert open_store(folder / "toy").digest == former.digest
    assert verify_store(folder / "toy") == []


def test_a_store_replaces_its_former_self(tmp_path: Path) -> None:
    former = write_store(tmp_path / "toy", make_samples(4), **KEYWORDS)
    still_mapped = former.images
    newer = write_store(tmp_path / "toy", make_samples(6), **KEYWORDS)
    assert len(open_store(tmp_path / "toy")) == 6
    assert newer.digest != former.digest
    np.testing.assert_array_equal(still_mapped[3], make_samples(4)[3].image)
    assert leftovers(tmp_path) == ["toy"]


def test_somebodys_data_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "slides").mkdir()
    (tmp_path / "slides" / "a.jpg").write_bytes(b"precious")
    with pytest.raises(DataError, match=r"a\.jpg"):
        write_store(tmp_path / "slides", make_samples(2), **KEYWORDS)
    (tmp_path / "file").write_text("precious")
    with pytest.raises(DataError, match="nothing is replaced"):
        write_store(tmp_path / "file", make_samples(2), **KEYWORDS)
    assert (tmp_path / "slides" / "a.jpg").read_bytes() == b"precious"
    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cell_class": "unknown"}, "class 'unknown'"),
        ({"source_split": "Training"}, "source split 'Training'"),
        ({"attributes": (0,) * 10}, "10 attributes"),
        ({"attributes": (2, *(0,) * 10)}, "cell_size has value 2"),
        ({"attributes": (*(0,) * 10, -2)}, "granularity has value -2"),
        ({"id": make_samples(1)[0].id}, "occurs twice"),
    ],
)
def test_labels_outside_the_vocabulary_are_refused(tmp_path: Path, changes: dict, message: str) -> None:
    first, second = make_samples(2)
    with pytest.raises(DataError, match=message) as caught:
        write_store(tmp_path / "toy", [first, replace(second, **changes)], **KEYWORDS)
    assert caught.value.exit_code == EXIT_DATA
    assert leftovers(tmp_path) == []


def test_an_empty_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no samples"):
        write_store(tmp_path / "toy", [], **KEYWORDS)
    assert leftovers(tmp_path) == []


def test_too_little_space_is_found_before_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 3000, 3000))
    taken = []

    def samples() -> Iterator[Sample]:
        for sample in make_samples():
            taken.append(sample)
            yield sample

    with pytest.raises(DataError, match="3,000 bytes are free") as caught:
        write_store(tmp_path / "toy", samples(), **KEYWORDS, expected_count=13)
    needed = 13 * (SIZE_PX**2 * 3 + 1024)
    assert f"{needed:,} bytes" in caught.value.expected
    assert caught.value.where == str(tmp_path / "toy")
    assert taken == []
    assert leftovers(tmp_path) == []
    with pytest.raises(DataError, match="3,000 bytes are free"):  # a list knows its length
        write_store(tmp_path / "toy", make_samples(), **KEYWORDS)


class FullDisk:
    """A file that can take 1,000 bytes."""

    def __init__(self, file: Any, code: int) -> None:
        self._file, self._code, self._written = file, code, 0

    def write(self, data: bytes) -> int:
        self._written += len(data)
        if self._written > 1000:
            raise OSError(self._code, os.strerror(self._code))
        return self._file.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@pytest.mark.parametrize(
    ("code", "words"),
    [(errno.ENOSPC, "no space"), (errno.EDQUOT, "no space"), (errno.EIO, "cannot be written")],
)
def test_a_disk_that_fills_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, words: str) -> None:
    former = write_store(tmp_path / "toy", make_samples(3), **KEYWORDS)
    with packed.StoreWriter(tmp_path / "toy", **KEYWORDS, expected_count=13) as writer:
        writer._files = {name: FullDisk(file, code) for name, file in writer._files.items()}
        with pytest.raises(DataError, match=words) as caught:
            list(map(writer.add, make_samples()))
    assert "bytes" in caught.value.expected
    assert str(tmp_path) in caught.value.where
    assert leftovers(tmp_path) == ["toy"]
    assert open_store(tmp_path / "toy").digest == former.digest


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="permissions do not bind this user")
def test_a_directory_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(DataError, match="Permission denied"):
            write_store(tmp_path / "toy", make_samples(2), **KEYWORDS)
    finally:
        tmp_path.chmod(0o700)


def test_a_parent_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        write_store(tmp_path / "file" / "toy", make_samples(2), **KEYWORDS)


def write_and_die(directory: Path) -> None:
    def samples() -> Iterator[Sample]:
        yield from make_samples(5)
        os.kill(os.getpid(), signal.SIGKILL)

    write_store(directory, samples(), **KEYWORDS)


@pytest.mark.skipif(os.name != "posix", reason="kills a process")
def test_killed_in_the_middle(tmp_path: Path) -> None:
    """What is left is no store, and the next preparation clears it away."""
    directory = tmp_path / "cache" / "toy"
    process = multiprocessing.get_context("spawn").Process(target=write_and_die, args=(directory,))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert len(leftovers(tmp_path / "cache")) == 1
    with pytest.raises(DataError, match="no prepared store"):
        open_store(directory)
    write_store(directory, make_samples(), **KEYWORDS)
    assert leftovers(tmp_path / "cache") == ["toy"]


def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    """Python's and NumPy's allocations, of which pixels are by far the most: 40 MB of images against 2 MB."""

    def samples(n: int) -> Iterator[Sample]:
        template = make_samples(1)[0]
        for i in range(n):
            yield replace(template, id=str(i), image=np.full((256, 256, 3), i % 256, np.uint8))

    peaks = []
    for n in (10, 200):
        tracemalloc.start()
        write_store(tmp_path / str(n), samples(n), **(KEYWORDS | {"size_px": 256}))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 1e6

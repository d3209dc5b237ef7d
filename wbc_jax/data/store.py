"""The packed store: a prepared data set as one file of uint8 squares, with digests over everything.

A store is a directory of three files. `images.u8` holds N squares of S x S x 3 bytes one after the other,
`samples.jsonl` one line of labels for each, `store.json` what they are and the SHA-256 of both files. `store.json`
is written last and the directory takes its name when it is complete, so a store exists whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wbc_jax.catalog import ABSENT, ATTRIBUTES
from wbc_jax.data.samples import SOURCE_SPLITS, Sample, SampleColumns
from wbc_jax.errors import DataError
from wbc_jax.runtime.json_files import dumps_strict

FORMAT = "wbc-jax packed store"
VERSION = 1
IMAGES_FILE, SAMPLES_FILE, STORE_FILE = "images.u8", "samples.jsonl", "store.json"
STORE_FILES = (IMAGES_FILE, SAMPLES_FILE, STORE_FILE)
_ROW_KEYS = {"id", "cell_class", "attributes", "group", "source_split", "sha256", "pixels_crc32"}
_STORE_KEYS = {
    "format", "version", "dataset", "class_names", "size_px", "framing", "count", "derived_from", "files", "digest",
}  # fmt: skip
_REMEDY = "prepare the data set again: wbc-jax data prepare NAME"


@dataclass(frozen=True, kw_only=True, eq=False)
class PackedStore:
    """A store that has been opened.

    Attributes:
        directory: where it lies.
        images: read-only memory map, uint8 `(N, size_px, size_px, 3)`, RGB.
        samples: labels and origins in columns.
        class_names: the data set's cell classes; `samples.cell_class` points into them.
        size_px: side of the squares, px.
        framing: how images were made square.
        dataset: name of the data set.
        digest: SHA-256 over the digests of images and samples and all facts; names the store's content.
        derived_from: what a derived store was made from and how; None for a data set's own.
    """

    directory: Path
    images: np.memmap
    samples: SampleColumns
    class_names: tuple[str, ...]
    size_px: int
    framing: str
    dataset: str
    digest: str
    derived_from: Mapping[str, Any] | None

    def __len__(self) -> int:
        return len(self.samples)


def open_store(directory: str | Path) -> PackedStore:
    """Opens a store. Sizes, format and the digest of the labels are checked; that of the images by `verify_store`.

    Raises:
        DataError: if there is no store, or it is incomplete, damaged or of another version.
    """
    directory = Path(directory)
    facts = _read_facts(directory)
    shape = (facts["count"], facts["size_px"], facts["size_px"], 3)
    for name in (IMAGES_FILE, SAMPLES_FILE):
        _check_size(directory / name, facts["files"][name]["bytes"])
    data = _read(directory / SAMPLES_FILE)
    if hashlib.sha256(data).hexdigest() != facts["files"][SAMPLES_FILE]["sha256"]:
        raise _damaged(directory / SAMPLES_FILE, "its content has changed since it was written")
    rows = [json.loads(line) for line in data.decode("utf-8").splitlines()]
    class_names = tuple(facts["class_names"])
    return PackedStore(
        directory=directory,
        images=np.memmap(directory / IMAGES_FILE, np.uint8, mode="r", shape=shape),
        samples=_columns(rows, class_names, facts["digest"]),
        class_names=class_names,
        size_px=facts["size_px"],
        framing=facts["framing"],
        dataset=facts["dataset"],
        digest=facts["digest"],
        derived_from=facts["derived_from"],
    )


def verify_store(directory: str | Path, on_progress: Callable[[int, int], object] | None = None) -> list[str]:
    """Reads everything again and compares it with the digests.

    Args:
        directory: the store.
        on_progress: called with bytes read and bytes in all.

    Returns:
        One line per problem, naming the file, and for changed pixels the images; empty for a sound store.
    """
    directory = Path(directory)
    try:
        store = open_store(directory)
    except DataError as error:
        return [f"{error.where}: {error.found}" if error.where else error.found]
    problems = [
        f"{path}: does not belong to a store"
        for path in sorted(directory.iterdir())
        if path.name not in STORE_FILES
    ]
    checksums = [json.loads(line)["pixels_crc32"] for line in _read(directory / SAMPLES_FILE).splitlines()]
    sha, changed = hashlib.sha256(), []
    image_bytes = store.size_px**2 * 3
    with (directory / IMAGES_FILE).open("rb") as file:
        for row, checksum in enumerate(checksums):
            pixels = file.read(image_bytes)
            sha.update(pixels)
            if zlib.crc32(pixels) != checksum:
                changed.append(f"row {row} ({store.samples.ids[row]})")
            if on_progress is not None:
                on_progress((row + 1) * image_bytes, len(store) * image_bytes)
    if sha.hexdigest() != _read_facts(directory)["files"][IMAGES_FILE]["sha256"]:
        named = ", ".join(changed[:5]) + (f" and {len(changed) - 5} more" if len(changed) > 5 else "")
        problems.append(f"{directory / IMAGES_FILE}: pixels have changed since they were written: {named}")
    return problems


def sample_line(sample: Sample, pixels: bytes) -> str:
    """The line of `samples.jsonl` for a sample; names instead of indices, null for what is unknown."""
    attributes = {
        attribute.name: None if value == ABSENT else attribute.values[value]
        for attribute, value in zip(ATTRIBUTES, sample.attributes, strict=True)
    }
    row = {
        "id": sample.id,
        "cell_class": sample.cell_class,
        "attributes": None if all(value is None for value in attributes.values()) else attributes,
        "group": sample.group or None,
        "source_split": sample.source_split or None,
        "sha256": sample.sha256,
        "pixels_crc32": zlib.crc32(pixels),
    }
    # ASCII only: some of the line ends that str.splitlines knows may occur in file names.
    return json.dumps(row, ensure_ascii=True, allow_nan=False) + "\n"


def store_text(facts: Mapping[str, Any]) -> str:
    """Text of `store.json`: the facts and, last, the digest over their canonical form."""
    digest = hashlib.sha256(dumps_strict(dict(facts)).encode("utf-8")).hexdigest()
    return dumps_strict({**facts, "digest": digest}, indent=2) + "\n"


def _read_facts(directory: Path) -> dict[str, Any]:
    """`store.json`, complete, of this version and unchanged since it was written."""
    path = directory / STORE_FILE
    if not path.is_file():
        raise DataError(f"no prepared store: {STORE_FILE} is missing", where=str(directory), remedy=_REMEDY)
    text = _read(path)
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, "it is not JSON") from error
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise _damaged(path, "it does not describe a packed store")
    if facts.get("version") != VERSION:
        raise DataError(
            f"store version {facts.get('version')!r}",
            expected=f"version {VERSION}",
            where=str(path),
            remedy=_REMEDY,
        )
    unsealed = {key: value for key, value in facts.items() if key != "digest"}
    if set(facts) != _STORE_KEYS or store_text(unsealed).encode("utf-8") != text:
        raise _damaged(path, "its content has changed since it was written")
    return facts


def _columns(rows: list[dict[str, Any]], class_names: tuple[str, ...], digest: str) -> SampleColumns:
    class_index = {name: index for index, name in enumerate(class_names)}
    attributes = np.full((len(rows), len(ATTRIBUTES)), ABSENT, np.int32)
    for row, target in zip(rows, attributes, strict=True):
        for column, attribute in enumerate(ATTRIBUTES):
            value = None if row["attributes"] is None else row["attributes"][attribute.name]
            target[column] = ABSENT if value is None else attribute.encode(value)
    return SampleColumns(
        ids=[row["id"] for row in rows],
        cell_classes=class_names,
        cell_class=np.array([class_index[row["cell_class"]] for row in rows], np.int32),
        attributes=attributes,
        groups=np.array([row["group"] or "" for row in rows], np.str_),
        source_splits=np.array([row["source_split"] or "" for row in rows], np.str_),
        sha256=np.array([row["sha256"] for row in rows], np.str_),
        store_digest=digest,
    )


def check_sample(sample: Sample, class_names: tuple[str, ...]) -> None:
    """DataError unless the labels are of the known vocabulary."""
    problem = None
    if sample.cell_class not in class_names:
        problem = f"class {sample.cell_class!r} is not among {', '.join(class_names)}"
    elif sample.source_split not in ("", *SOURCE_SPLITS):
        problem = f"source split {sample.source_split!r} is none of {', '.join(SOURCE_SPLITS)}"
    elif len(sample.attributes) != len(ATTRIBUTES):
        problem = f"{len(sample.attributes)} attributes instead of {len(ATTRIBUTES)}"
    else:
        for attribute, value in zip(ATTRIBUTES, sample.attributes, strict=True):
            if not ABSENT <= value < len(attribute.values):
                problem = f"{attribute.name} has value {value} of {len(attribute.values)}"
    if problem is not None:
        raise DataError(problem, where=sample.id, remedy="correct the data set's builder or labels")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _damaged(path, f"it cannot be read: {error.strerror or error}") from error


def _check_size(path: Path, expected: int) -> None:
    if not path.is_file():
        raise _damaged(path, "it is missing")
    found = path.stat().st_size
    if found != expected:
        raise _damaged(path, f"{found:,} bytes instead of {expected:,}")


def _damaged(path: Path, what: str) -> DataError:
    return DataError(f"damaged store: {what}", where=str(path), remedy=_REMEDY)

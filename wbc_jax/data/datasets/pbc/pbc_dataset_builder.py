"""PBC: 17,092 single cells of eight classes from Barcelona, with WBCAtt's attributes and split for five of them."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from wbc_jax.catalog import ATTRIBUTES, canonical_class
from wbc_jax.data.datasets.base import SmearBuilder, manual_instructions
from wbc_jax.data.datasets.facts import DATASETS
from wbc_jax.data.datasets.scan import Flaw, RawImage, Scan, scan_class_folders
from wbc_jax.errors import DataError

_TABLES = {split: f"pbc_attr_v1_{split}.csv" for split in ("train", "val", "test")}


@dataclass(frozen=True, slots=True)
class _Row:
    """One image's line in a WBCAtt table."""

    split: str
    cell_class: str | None
    attributes: tuple[int, ...]


class Builder(SmearBuilder):
    """Class folders, joined with the WBCAtt tables by image name. Images without a row belong to no split."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = manual_instructions("pbc")
    KNOWN_CONFLICTS = (frozenset({"BNE_191112.jpg", "EO_225902.jpg"}),)

    @classmethod
    def annotation_files(cls, root: Path) -> tuple[Path, ...]:
        """WBCAtt's three tables, in PBC's folder or beside it; empty where they are absent."""
        for folder in (
            root,
            root / "wbcatt",
            root.parent,
            root.parent / "wbcatt",
            root.parent.parent / "wbcatt",
        ):
            tables = tuple(folder / name for name in _TABLES.values() if (folder / name).is_file())
            if tables:
                return tables
        return ()

    @classmethod
    def scan(cls, root: Path) -> Scan:
        scan = scan_class_folders(root, classes=DATASETS["pbc"].classes, splits={})
        tables = cls.annotation_files(root)
        absent = sorted(set(_TABLES.values()) - {table.name for table in tables})
        if absent:
            scan.notes.append(
                f"WBCAtt tables not found: {', '.join(absent)}; their images have no attributes and no split "
                "(https://github.com/apple2373/wbcatt)"
            )
        rows = _read_tables(tables)
        here = {image.path.name for image in scan.images}
        unmatched = len(rows.keys() - here)
        if unmatched:
            scan.notes.append(f"{unmatched} of {len(rows)} WBCAtt rows have no image here")
        images = []
        for image in scan.images:
            row = rows.get(image.path.name)
            if row is not None and row.cell_class != image.cell_class:
                scan.problems.append(Flaw(image.id, f"WBCAtt calls it {row.cell_class}", image.cell_class))
                continue
            images.append(_annotated(image, row))
        scan.images = images
        return scan


def _annotated(image: RawImage, row: _Row | None) -> RawImage:
    if row is None:
        return image
    return replace(image, source_split=row.split, attributes=row.attributes)


def _read_tables(tables: tuple[Path, ...]) -> dict[str, _Row]:
    """Rows by image name. DataError lists every line that cannot be used."""
    rows: dict[str, _Row] = {}
    faults: list[str] = []
    for table in tables:
        split = next(split for split, name in _TABLES.items() if name == table.name)
        for name, row in _rows(table, split, faults):
            if name in rows:
                faults.append(f"{table.name}: {name} occurs twice")
            rows[name] = row
    if faults:
        raise DataError(
            "WBCAtt tables with lines that cannot be used:\n  " + "\n  ".join(faults[:20]),
            expected="one row per image with the columns img_name, label and the 11 attributes",
            where=str(tables[0].parent),
            remedy="get the tables again from https://github.com/apple2373/wbcatt",
        )
    return rows


def _rows(table: Path, split: str, faults: list[str]) -> Iterator[tuple[str, _Row]]:
    with table.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        needed = ["img_name", "label", *(attribute.name for attribute in ATTRIBUTES)]
        absent = [column for column in needed if column not in (reader.fieldnames or ())]
        if absent:
            faults.append(f"{table.name}: no column {', '.join(absent)}")
            return
        for line in reader:
            values: list[int] = []
            for attribute in ATTRIBUTES:
                try:
                    values.append(attribute.encode(line[attribute.name] or ""))
                except ValueError as error:
                    faults.append(f"{table.name}, line {reader.line_num}: {error}")
            if len(values) == len(ATTRIBUTES):
                yield line["img_name"], _Row(split, canonical_class(line["label"] or ""), tuple(values))

"""BCCD's original smear images: white cells cut out by their boxes, classes from the Kaggle archive's labels.csv."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from xml.etree import ElementTree

from wbc_jax.catalog import canonical_class
from wbc_jax.data.datasets.base import SmearBuilder, manual_instructions
from wbc_jax.data.datasets.scan import Flaw, RawImage, Scan, is_system_file
from wbc_jax.data.decode import BadImage, read_image
from wbc_jax.errors import DataError

BOX_MARGIN = 0.1
"""Margin around a box on each side, as a share of the box's longer side."""
_LABELS = "labels.csv"
_LARGEST_ANNOTATION_BYTES = 1_000_000


class Builder(SmearBuilder):
    """One example per box of a white cell, in the class that all of the image's labels agree on.

    Cells of one smear image share their group.
    """

    MANUAL_DOWNLOAD_INSTRUCTIONS = manual_instructions("bccd_voc")

    @classmethod
    def annotation_files(cls, root: Path) -> tuple[Path, ...]:
        """The label table: in BCCD's folder, beside it, or in the Kaggle archive's folders beside it."""
        kaggle = "bccd_kaggle"
        inner = "dataset-master/dataset-master"
        for folder in (root, root.parent, root.parent.parent):
            for place in (".", inner, kaggle, f"{kaggle}/{inner}"):
                if (folder / place / _LABELS).is_file():
                    return (folder / place / _LABELS,)
        return ()

    @classmethod
    def scan(cls, root: Path) -> Scan:
        tables = cls.annotation_files(root)
        if not tables:
            raise DataError(
                "no labels.csv with the cell class of each BCCD image",
                expected=f"{_LABELS} in {root}, beside it, or in bccd_kaggle beside that",
                where=str(root),
                remedy="take dataset-master/dataset-master/labels.csv from "
                "https://www.kaggle.com/datasets/paultimothymooney/blood-cells",
            )
        classes = _read_labels(tables[0])
        scan = Scan()
        for annotation in sorted((root / "Annotations").glob("*.xml")):
            if not is_system_file(Path(annotation.name)):
                _scan_image(root, annotation, classes, scan)
        return scan


def image_classes(root: Path) -> dict[str, set[str]]:
    """Cell classes in the common vocabulary that the label table names for each image, by the image's name.

    Args:
        root: BCCD's folder.
    """
    tables = Builder.annotation_files(root)
    named = _read_labels(tables[0]) if tables else {}
    return {
        f"BloodImage_{number:05}": {known for label in labels if (known := canonical_class(label))}
        for number, labels in named.items()
    }


def _scan_image(root: Path, annotation: Path, classes: dict[int, set[str]], scan: Scan) -> None:
    """Adds the cells of one smear image to the scan, or the reason why there are none."""
    stem = annotation.stem
    name = f"JPEGImages/{stem}.jpg"
    path = root / name
    if not path.is_file():
        scan.skipped.append(Flaw(name, "annotated, but the image is not here"))
        return
    number = re.search(r"(\d+)$", stem)
    named = classes.get(int(number.group(1)), set()) if number else set()
    if len(named) != 1:
        reason = f"labels.csv names {', '.join(sorted(named))}" if named else "no class in labels.csv"
        scan.skipped.append(Flaw(name, reason))
        return
    (label,) = named
    cell_class = canonical_class(label)
    if cell_class is None:
        scan.skipped.append(Flaw(name, f"labels.csv names {label!r}, which is no cell class"))
        return
    try:
        height, width = read_image(path).shape[:2]
        boxes = _white_cell_boxes(annotation)
    except BadImage as error:
        scan.problems.append(Flaw(name, error.reason, cell_class))
        return
    except (ValueError, ElementTree.ParseError) as error:
        scan.problems.append(Flaw(f"Annotations/{annotation.name}", str(error), cell_class))
        return
    if not boxes:
        scan.skipped.append(Flaw(name, "no box of a white cell"))
    for box in boxes:
        x0, y0, x1, y1 = widened = _with_margin(box, width, height)
        if x1 - x0 < 2 or y1 - y0 < 2:
            scan.skipped.append(Flaw(name, f"box {box} lies outside the {width}x{height} px image"))
            continue
        identity = f"{name}#{x0},{y0},{x1},{y1}"
        scan.images.append(RawImage(id=identity, path=path, cell_class=cell_class, group=stem, box=widened))


def _with_margin(box: tuple[int, int, int, int], width: int, height: int) -> tuple[int, int, int, int]:
    """The box with its margin, cut at the image's edges."""
    x0, y0, x1, y1 = box
    margin = round(BOX_MARGIN * max(x1 - x0, y1 - y0))
    return max(0, x0 - margin), max(0, y0 - margin), min(width, x1 + margin), min(height, y1 + margin)


def _white_cell_boxes(annotation: Path) -> list[tuple[int, int, int, int]]:
    """x0, y0, x1, y1 of the boxes named WBC. ValueError or ParseError for a file that is no such annotation."""
    content = annotation.read_bytes()
    if len(content) > _LARGEST_ANNOTATION_BYTES or b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        raise ValueError(f"{annotation.name} is not a plain Pascal VOC annotation")
    boxes = []
    for item in ElementTree.fromstring(content).iter("object"):
        if item.findtext("name") != "WBC":
            continue
        corners = [item.findtext(f"bndbox/{corner}") for corner in ("xmin", "ymin", "xmax", "ymax")]
        if None in corners:
            raise ValueError(f"{annotation.name} has a box without its four corners")
        x0, y0, x1, y1 = (int(float(corner or "")) for corner in corners)
        boxes.append((x0, y0, x1, y1))
    return boxes


def _read_labels(table: Path) -> dict[int, set[str]]:
    """Distinct class names by image number; an image can have several, or none."""
    classes: dict[int, set[str]] = {}
    with table.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if not {"Image", "Category"} <= set(reader.fieldnames or ()):
            raise DataError(
                "labels.csv has no columns Image and Category",
                expected="columns Image (number) and Category (cell class)",
                where=str(table),
            )
        for line in reader:
            if (line["Image"] or "").strip().isdigit():
                names = (line["Category"] or "").split(",")
                classes[int(line["Image"])] = {name.strip() for name in names if name.strip()}
    return classes

"""Jiangxi Tecom (Zheng et al. 2018): 300 single cells of about 120x120 px with segmentation masks."""

from __future__ import annotations

import csv
import re
from pathlib import Path

from wbc_jax.data.datasets.base import SmearBuilder, manual_instructions
from wbc_jax.data.datasets.scan import Flaw, RawImage, Scan, is_system_file
from wbc_jax.errors import DataError

IMAGES = "Dataset 1"
LABELS = "Class Labels of Dataset 1.csv"
_CLASS_OF_LABEL = {1: "neutrophil", 2: "lymphocyte", 3: "monocyte", 4: "eosinophil", 5: "basophil"}


class Builder(SmearBuilder):
    """`NNN.bmp` (or .png) with a label table; masks (`NNN.png` beside a .bmp, `NNN_mask.png`) are no examples."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = manual_instructions("jtsc")

    @classmethod
    def scan(cls, root: Path) -> Scan:
        labels = _read_labels(root / LABELS)
        scan = Scan()
        files = sorted(path for path in (root / IMAGES).iterdir() if path.is_file())
        originals = {path.stem for path in files if path.suffix.lower() == ".bmp"}
        for path in files:
            name = f"{IMAGES}/{path.name}"
            if is_system_file(Path(path.name)):
                scan.skipped.append(Flaw(name, "left behind by an operating system, not an image"))
                continue
            is_mask = path.stem.endswith("_mask") or (
                path.suffix.lower() == ".png" and path.stem in originals
            )
            if is_mask or path.suffix.lower() not in (".bmp", ".png"):
                continue
            number = int(path.stem) if re.fullmatch(r"\d+", path.stem) else None
            if number is None or number not in labels:
                scan.skipped.append(Flaw(name, f"no label in {LABELS}"))
            elif labels[number] not in _CLASS_OF_LABEL:
                scan.skipped.append(Flaw(name, f"label {labels[number]} is none of 1 to 5"))
            else:
                scan.images.append(RawImage(id=name, path=path, cell_class=_CLASS_OF_LABEL[labels[number]]))
        return scan


def _read_labels(table: Path) -> dict[int, int]:
    """Class label 1 to 5 by image number."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            lines = list(csv.reader(file))[1:]
        return {int(line[0]): int(line[1]) for line in lines if line}
    except (OSError, ValueError, IndexError) as error:
        raise DataError(
            f"the label table cannot be used: {error}",
            expected="a header, then image number and class label 1 to 5 in each line",
            where=str(table),
            remedy="get it from https://github.com/zxaoyou/segmentation_WBC",
        ) from error

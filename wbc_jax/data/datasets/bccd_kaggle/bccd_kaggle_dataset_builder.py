"""BCCD as augmented and published on Kaggle: four classes, 320x240 px."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import tensorflow_datasets as tfds

from wbc_jax.data.datasets.base import SmearBuilder, manual_instructions
from wbc_jax.data.datasets.facts import DATASETS
from wbc_jax.data.datasets.fields import with_fields
from wbc_jax.data.datasets.scan import Scan, scan_class_folders

_ORIGINALS = (
    "dataset-master/dataset-master/JPEGImages",
    "dataset-master/JPEGImages",
    "bccd_voc/BCCD/JPEGImages",
    "BCCD/JPEGImages",
)
_LEVELS_UP = 4
_SPLITS = {"train": "train", "test": "test", "test_simple": "simple"}


class Builder(SmearBuilder):
    """Class folders in TRAIN, TEST and TEST_SIMPLE.

    TEST_SIMPLE (71 originals) is source split `simple`: neither train, val nor test unless a task says so.
    Copies of one smear image cannot be told from their names (the first number in a name is a position in a batch:
    within a number, images vary as much as between numbers), so their pixels group them: by the field they show,
    named by BCCD's original where that lies in the archive's dataset-master or in bccd_voc.
    """

    VERSION = tfds.core.Version("1.1.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.1.0": "Copies of one smear image form a group."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = manual_instructions("bccd_kaggle")

    @classmethod
    def annotation_files(cls, root: Path) -> tuple[Path, ...]:
        """BCCD's originals, in the order of their names."""
        for folder in root.parents[:_LEVELS_UP]:
            for place in _ORIGINALS:
                found = sorted((folder / place).glob("BloodImage_*.jpg"))
                if found:
                    return tuple(found)
        return ()

    def with_groups(self, root: Path, scan: Scan) -> Scan:
        originals = {path.stem: path for path in self.annotation_files(root)}
        return with_fields(scan, originals, self.on_progress)

    @classmethod
    def scan(cls, root: Path) -> Scan:
        return scan_class_folders(root, classes=DATASETS["bccd_kaggle"].classes, splits=_SPLITS)

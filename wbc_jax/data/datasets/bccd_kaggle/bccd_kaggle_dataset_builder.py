"""BCCD as augmented and published on Kaggle: four classes, 320x240 px."""

from __future__ import annotations

from pathlib import Path

from wbc_jax.data.datasets.base import SmearBuilder, manual_instructions
from wbc_jax.data.datasets.facts import DATASETS
from wbc_jax.data.datasets.scan import Scan, scan_class_folders

_SPLITS = {"train": "train", "test": "test", "test_simple": "simple"}


class Builder(SmearBuilder):
    """Class folders in TRAIN, TEST and TEST_SIMPLE.

    TEST_SIMPLE (71 originals) is source split `simple`: neither train, val nor test unless a task says so.
    Copies of one smear image cannot be told from their names (the first number in a name is a position in a batch:
    within a number, images vary as much as between numbers), so no group is set.
    """

    MANUAL_DOWNLOAD_INSTRUCTIONS = manual_instructions("bccd_kaggle")

    @classmethod
    def scan(cls, root: Path) -> Scan:
        return scan_class_folders(root, classes=DATASETS["bccd_kaggle"].classes, splits=_SPLITS)

"""Raabin-WBC: double-labelled cells, cut out at 575x575 px."""

from __future__ import annotations

from pathlib import Path

from wbc_jax.data.datasets.base import SmearBuilder, manual_instructions
from wbc_jax.data.datasets.facts import DATASETS
from wbc_jax.data.datasets.scan import Scan, scan_class_folders

_SPLITS = {
    "train": "train",
    "testa": "test",
    "test-a": "test",
    "test_a": "test",
    "testb": "test_b",
    "test-b": "test_b",
    "test_b": "test_b",
}


class Builder(SmearBuilder):
    """Class folders in Train, TestA and TestB. TestB, from another microscope, is neither train nor test."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = manual_instructions("raabin")

    @classmethod
    def scan(cls, root: Path) -> Scan:
        return scan_class_folders(root, classes=DATASETS["raabin"].classes, splits=_SPLITS)

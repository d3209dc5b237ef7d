"""WBCs: 4,358 segmented single cells of 112x112 px (WBC-AMNet)."""

from __future__ import annotations

from pathlib import Path

from wbc_jax.data.datasets.base import SmearBuilder, manual_instructions
from wbc_jax.data.datasets.facts import DATASETS
from wbc_jax.data.datasets.scan import Scan, scan_class_folders


class Builder(SmearBuilder):
    """Class folders, with or without split folders."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = manual_instructions("wbcs")

    @classmethod
    def scan(cls, root: Path) -> Scan:
        return scan_class_folders(root, classes=DATASETS["wbcs"].classes)

"""LISC: 242 smear images with one white cell each."""

from __future__ import annotations

from pathlib import Path

from wbc_jax.data.datasets.base import SmearBuilder, manual_instructions
from wbc_jax.data.datasets.facts import DATASETS
from wbc_jax.data.datasets.scan import Scan, scan_class_folders


class Builder(SmearBuilder):
    """Class folders; the mixed cells of the original archive are passed over."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = manual_instructions("lisc")

    @classmethod
    def scan(cls, root: Path) -> Scan:
        return scan_class_folders(root, classes=DATASETS["lisc"].classes, ignored_folders=("mixt",))

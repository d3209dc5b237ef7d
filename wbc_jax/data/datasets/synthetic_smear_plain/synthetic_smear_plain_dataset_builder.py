"""Synthetic smears without attributes: 600 cells that stand for another laboratory's images."""

from __future__ import annotations

from typing import ClassVar

from wbc_jax.data.datasets.drawn import DrawnBuilder


class Builder(DrawnBuilder):
    """Seed 1, attributes kept back: the first 400 samples are train, then 100 val and 100 test."""

    SEED = 1
    COUNTS: ClassVar[dict[str, int]] = {"train": 400, "val": 100, "test": 100}
    ANNOTATED = False

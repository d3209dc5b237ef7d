"""Synthetic smears: 3,000 cells of five classes, drawn by `wbc_jax.data.synthetic`, with exact attributes."""

from __future__ import annotations

from typing import ClassVar

from wbc_jax.data.datasets.drawn import DrawnBuilder


class Builder(DrawnBuilder):
    """Seed 0: the first 2,000 samples are train, then 400 val and 600 test."""

    SEED = 0
    COUNTS: ClassVar[dict[str, int]] = {"train": 2000, "val": 400, "test": 600}

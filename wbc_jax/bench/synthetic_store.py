"""A packed store of noise, for measuring how fast batches come out of one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from wbc_jax.catalog import CELL_CLASSES
from wbc_jax.data.packed import PackedStore, Sample, write_store


def write_noise_store(directory: Path, images: int, size_px: int, num_classes: int) -> PackedStore:
    """Writes `images` squares of `size_px`, noise with labels in turn, to a new store."""
    names = CELL_CLASSES[:num_classes]

    def samples() -> Iterator[Sample]:
        for index in range(images):
            pixels = np.random.default_rng(index).integers(0, 256, (size_px, size_px, 3), np.uint8)
            yield Sample(
                id=f"noise-{index}",
                image=pixels,
                cell_class=names[index % len(names)],
                attributes=(-1,) * 11,
                sha256=hashlib.sha256(pixels.tobytes()).hexdigest(),
            )

    return write_store(
        directory,
        samples(),
        size_px=size_px,
        framing="squash",
        dataset="noise",
        class_names=names,
        expected_count=images,
    )

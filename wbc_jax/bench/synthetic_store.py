"""Packed stores to measure how fast batches come out of: of noise, and of JPEG files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
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


def find_jpegs(folder: Path, count: int) -> tuple[Path, ...]:
    """At most `count` JPEG files below a folder, evenly spread over all of them, sorted."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    return tuple(found[:: max(1, len(found) // count)][:count])


def write_jpeg_store(directory: Path, paths: Sequence[Path], size_px: int) -> PackedStore:
    """Writes the images, stretched to squares of `size_px`, to a new store, with labels in turn."""
    from wbc_jax.data.decode import decode_image
    from wbc_jax.data.framing import frame_image

    names = CELL_CLASSES[:5]

    def samples() -> Iterator[Sample]:
        for index, path in enumerate(paths):
            content = path.read_bytes()
            yield Sample(
                id=f"{index:08d}",
                image=frame_image(decode_image(content, path.name), size_px, "squash"),
                cell_class=names[index % len(names)],
                attributes=(-1,) * 11,
                sha256=hashlib.sha256(content).hexdigest(),
            )

    return write_store(
        directory,
        samples(),
        size_px=size_px,
        framing="squash",
        dataset="jpeg",
        class_names=names,
        expected_count=len(paths),
    )

"""Synthetic smears: 3,000 cells of five classes, drawn by `wbc_jax.data.synthetic`, with exact attributes."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from threadpoolctl import ThreadpoolController

from wbc_jax.data import synthetic
from wbc_jax.data.datasets.base import SPLIT_ORDER, SmearBuilder
from wbc_jax.data.datasets.scan import RawImage, Scan
from wbc_jax.data.synthetic.render import class_of, render_sample

SEED = 0
SIZE_PX = 96
COUNTS: dict[str, int] = {"train": 2000, "val": 400, "test": 600}
_SHARD_IMAGES = 250


class Builder(SmearBuilder):
    """Sample `index` of the renderer with seed 0: the first 2,000 are train, then 400 val and 600 test."""

    @classmethod
    def source_digest(cls, root: Path) -> str:
        """Digest of the renderer's own code and of the counts: another renderer, another data set."""
        sha = hashlib.sha256(f"{SEED} {SIZE_PX} {COUNTS}".encode())
        for module in sorted(Path(synthetic.__path__[0]).glob("*.py")):
            sha.update(module.read_bytes())
        return sha.hexdigest()

    @classmethod
    def scan(cls, root: Path) -> Scan:
        splits = [name for name in SPLIT_ORDER for _ in range(COUNTS[name])]
        return Scan(
            images=[
                RawImage(id=f"{SEED}/{n}", path=Path(), cell_class=class_of(SEED, n), source_split=split)
                for n, split in enumerate(splits)
            ]
        )

    def collect(self, root: Path) -> Scan:
        """Nothing to read and no duplicates to find."""
        return self.scan(root)

    def _shard_iterators_per_split(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, list[Callable[[], Iterator[tuple[str, dict[str, Any]]]]]]:
        return self._plan(self.scan(Path()).images, lambda image: 1, _SHARD_IMAGES)

    def _examples(self, images: Sequence[RawImage]) -> Iterator[tuple[str, dict[str, Any]]]:
        blas = ThreadpoolController()
        for image in images:
            # The renderer's products are tiny: BLAS threads gain nothing and wait for one another on a busy
            # machine (58 ms instead of 6 ms a picture on 2 loaded cores).
            with blas.limit(limits=1):
                cell = render_sample(SEED, int(image.id.split("/")[1]), SIZE_PX)
            buffer = io.BytesIO()
            Image.fromarray(cell.image).save(buffer, format="PNG")
            encoded = buffer.getvalue()
            yield (
                image.id,
                {
                    "image": encoded,
                    "id": image.id,
                    "cell_class": cell.cell_class,
                    "source_split": image.source_split,
                    "group": "",
                    "attributes": np.asarray(cell.attributes, np.int32),
                    "sha256": hashlib.sha256(encoded).hexdigest(),
                },
            )
            if self.on_example is not None:
                self.on_example()

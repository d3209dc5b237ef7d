"""What the builders share whose images `wbc_jax.data.synthetic` draws."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from wbc_jax.data import synthetic
from wbc_jax.data.datasets.base import SPLIT_ORDER, SmearBuilder
from wbc_jax.data.datasets.scan import NO_ATTRIBUTES, RawImage, Scan
from wbc_jax.data.drawers import draw
from wbc_jax.data.synthetic.render import class_of

SIZE_PX = 96
_SHARD_IMAGES = 500


class DrawnBuilder(SmearBuilder, skip_registration=True):
    """Samples 0, 1, 2, … of the renderer with one seed: first the training images, then val and test."""

    SEED: ClassVar[int]
    COUNTS: ClassVar[dict[str, int]]
    ANNOTATED: ClassVar[bool] = True
    """Whether the drawing's attributes are told."""

    @classmethod
    def source_digest(cls, root: Path) -> str:
        """Digest of the renderer's own code and of the counts: another renderer, another data set."""
        sha = hashlib.sha256(f"{cls.SEED} {SIZE_PX} {cls.COUNTS}".encode())
        sha.update(b"" if cls.ANNOTATED else b"without attributes")
        for module in sorted(Path(synthetic.__path__[0]).glob("*.py")):
            sha.update(module.read_bytes())
        return sha.hexdigest()

    @classmethod
    def scan(cls, root: Path) -> Scan:
        splits = [name for name in SPLIT_ORDER for _ in range(cls.COUNTS[name])]
        return Scan(
            images=[
                RawImage(
                    id=f"{cls.SEED}/{n}", path=Path(), cell_class=class_of(cls.SEED, n), source_split=split
                )
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
        numbers = [int(image.id.split("/")[1]) for image in images]
        drawings = draw(self.SEED, range(numbers[0], numbers[0] + len(numbers)), SIZE_PX)
        for image, drawing in zip(images, drawings, strict=True):
            attributes = drawing.attributes if self.ANNOTATED else NO_ATTRIBUTES
            yield (
                image.id,
                {
                    "image": drawing.png,
                    "id": image.id,
                    "cell_class": drawing.cell_class,
                    "source_split": image.source_split,
                    "group": "",
                    "attributes": np.asarray(attributes, np.int32),
                    "sha256": hashlib.sha256(drawing.png).hexdigest(),
                },
            )
            if self.on_example is not None:
                self.on_example()

"""What every builder shares: the features of an example, streaming into shards, crops, splits.

Records are written as they are read, so memory does not grow with the data set: the usual
`GeneratorBasedBuilder` keeps up to 1 GB in memory to shuffle and needs TensorFlow beyond that, a
`ShardBasedBuilder` does neither. Order is that of the ids; shuffling is `wbc_jax.data.order`'s task.
"""

from __future__ import annotations

import abc
import functools
import hashlib
import inspect
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from etils import epath
from PIL import Image

from wbc_jax.catalog import ATTRIBUTE_NAMES
from wbc_jax.data.datasets.facts import DATASETS
from wbc_jax.data.datasets.scan import RawImage, Scan, listing_digest, with_digests, without_duplicates
from wbc_jax.data.decode import read_image
from wbc_jax.runtime.cpus import usable_cpus

SPLIT_ORDER = ("train", "val", "test")
UNSPLIT = "unsplit"
"""TFDS split of the images that come without a supplied split."""
SHARD_BYTES = 128 * 2**20

FEATURES = tfds.features.FeaturesDict(
    {
        "image": tfds.features.Image(doc="The original encoded bytes; PNG for a crop."),
        "id": tfds.features.Text(doc="Path in the data set's folder, with #x0,y0,x1,y1 for a crop."),
        "cell_class": tfds.features.Text(doc="Name in the common vocabulary, or the folder's own."),
        "source_split": tfds.features.Text(doc="Split as supplied, or empty."),
        "group": tfds.features.Text(doc="Source image, patient or slide, or empty."),
        "attributes": tfds.features.Tensor(
            shape=(len(ATTRIBUTE_NAMES),),
            dtype=np.int32,
            doc=f"Value indices of {', '.join(ATTRIBUTE_NAMES)}; -1 where not annotated.",
        ),
        "sha256": tfds.features.Text(doc="Digest of the original bytes; with the box for a crop."),
    }
)


class SmearBuilder(tfds.core.ShardBasedBuilder, skip_registration=True):
    """Base of the builders. A data set says how its folder is read in `scan`; the rest is here.

    `download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=FOLDER))` writes one TFDS split
    per supplied split, and `unsplit` for images without one; `as_data_source("all")` reads them all.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First version."}
    KNOWN_CONFLICTS: ClassVar[tuple[frozenset[str], ...]] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # TFDS's own look-up of these two needs importlib_resources, which it does not install.
        cls.code_path = epath.Path(inspect.getfile(cls))
        cls.pkg_dir_path = cls.code_path.parent

    on_example: Callable[[], object] | None = None
    """Called for each example written, for a progress bar."""
    on_progress: Callable[[str, int, int], object] | None = None
    """Called with the name of a slow stage of `collect`, what is done of it and the whole."""

    def __init__(self, *, file_format: str = "array_record", **kwargs: Any) -> None:
        super().__init__(file_format=file_format, **kwargs)
        self._collected: tuple[Path, Scan] | None = None

    @classmethod
    @abc.abstractmethod
    def scan(cls, root: Path) -> Scan:
        """Looks through the data set's folder by names and tables, without decoding."""

    @classmethod
    def annotation_files(cls, root: Path) -> tuple[Path, ...]:
        """Tables outside the folder that the scan reads as well."""
        return ()

    def with_groups(self, root: Path, scan: Scan) -> Scan:
        """The scan with groups that only the pixels tell; most data sets have none, or know them by name."""
        return scan

    @classmethod
    def source_digest(cls, root: Path) -> str:
        """Changes whenever a source file is added, removed or rewritten, or the builder's version grows."""
        listing = listing_digest(root, cls.annotation_files(root))
        return hashlib.sha256(f"{cls.VERSION} {listing}".encode()).hexdigest()

    def collect(self, root: Path) -> Scan:
        """The scan with digests, and without duplicates and conflicting labels; read once per builder."""
        if self._collected is None or self._collected[0] != root:
            threads = min(8, usable_cpus() + 1)
            scan = with_digests(self.scan(root), threads=threads)
            scan = without_duplicates(scan, known_conflicts=self.KNOWN_CONFLICTS)
            self._collected = (root, self.with_groups(root, scan))
        return self._collected[1]

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=FEATURES, homepage=DATASETS[self.name].source, disable_shuffling=True
        )

    def _shard_iterators_per_split(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, list[Callable[[], Iterator[tuple[str, dict[str, Any]]]]]]:
        images = self.collect(Path(dl_manager.manual_dir)).images
        return self._plan(images, lambda image: image.path.stat().st_size, SHARD_BYTES)

    def _plan(
        self, images: Sequence[RawImage], weight: Callable[[RawImage], int], limit: int
    ) -> dict[str, list[Callable[[], Iterator[tuple[str, dict[str, Any]]]]]]:
        """Example generators by TFDS split and shard; a shard's weights add up to about `limit`."""
        by_split: dict[str, list[RawImage]] = {name: [] for name in SPLIT_ORDER}
        for image in images:
            by_split.setdefault(image.source_split or UNSPLIT, []).append(image)
        return {
            name: [functools.partial(self._examples, shard) for shard in _shards(members, weight, limit)]
            for name, members in by_split.items()
            if members
        }

    def _examples(self, images: Sequence[RawImage]) -> Iterator[tuple[str, dict[str, Any]]]:
        for image in images:
            # A path or a reader, not bytes: TFDS holds the examples of a shard until it is written.
            yield (
                image.id,
                {
                    "image": str(image.path) if image.box is None else Crop(image.path, image.box),
                    "id": image.id,
                    "cell_class": image.cell_class,
                    "source_split": image.source_split,
                    "group": image.group,
                    "attributes": np.asarray(image.attributes, np.int32),
                    "sha256": image.sha256,
                },
            )
            if self.on_example is not None:
                self.on_example()


class Crop:
    """Part of an image file, cut out and encoded as PNG when it is read."""

    def __init__(self, path: Path, box: tuple[int, int, int, int]) -> None:
        self._path, self._box = path, box

    def read(self) -> bytes:
        """PNG bytes of the box. BadImage when the file is damaged."""
        x0, y0, x1, y1 = self._box
        pixels = read_image(self._path)[y0:y1, x0:x1]  # (y1-y0, x1-x0, 3)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format="PNG")
        return buffer.getvalue()


def _shards(
    images: Sequence[RawImage], weight: Callable[[RawImage], int], limit: int
) -> list[list[RawImage]]:
    """Runs of consecutive images whose weights stay within `limit` unless one alone exceeds it."""
    shards: list[list[RawImage]] = [[]]
    filled = 0
    for image in images:
        size = weight(image)
        if shards[-1] and filled + size > limit:
            shards.append([])
            filled = 0
        shards[-1].append(image)
        filled += size
    return shards


def manual_instructions(name: str) -> str:
    """How to get a data set, for TFDS's own messages."""
    facts = DATASETS[name]
    return f"Get {facts.title} from {facts.source} and unpack it as: {facts.layout}"

"""What is known about the images of a data set, one by one and in columns."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

SOURCE_SPLITS = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One image with its labels.

    Attributes:
        id: unique in the data set, usually the path in its folder.
        image: uint8 `(H, W, 3)`, RGB, any size.
        cell_class: one of the data set's class names.
        attributes: 11 value indices in `catalog.ATTRIBUTES` order, -1 where not annotated.
        group: patient, slide or source image, "" when unknown. Images of one group never come apart in a split.
        source_split: "train", "val" or "test" as supplied, "" without one.
        sha256: digest of the original bytes, hexadecimal; equal for duplicates.
    """

    id: str
    image: np.ndarray
    cell_class: str
    attributes: tuple[int, ...]
    group: str = ""
    source_split: str = ""
    sha256: str


@dataclass(frozen=True, kw_only=True, eq=False)
class SampleColumns:
    """N samples without their images.

    Attributes:
        ids: N names, unique.
        cell_classes: the class names that `cell_class` points into.
        cell_class: int32 `(N,)`.
        attributes: int32 `(N, 11)`, -1 where not annotated.
        groups: str `(N,)`, "" when unknown.
        source_splits: str `(N,)`, "train", "val", "test" or "".
        sha256: str `(N,)`, hexadecimal digest of each original file.
        store_digest: digest of the store that the columns come from.
    """

    ids: list[str]
    cell_classes: tuple[str, ...]
    cell_class: np.ndarray
    attributes: np.ndarray
    groups: np.ndarray
    source_splits: np.ndarray
    sha256: np.ndarray
    store_digest: str

    def __len__(self) -> int:
        return len(self.ids)

    def ungrouped(self) -> SampleColumns:
        """The same samples as if no groups were known."""
        return replace(self, groups=np.full_like(self.groups, ""))

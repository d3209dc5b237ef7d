"""Images that nothing may be learned from: the validation and test parts of every data set of a mix. [pure]

An image is known by its name in its data set and by the digest of its file, which finds it in any other data set.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from wbc_jax.data.samples import SampleColumns
from wbc_jax.data.splits import Split


@dataclass(frozen=True)
class HeldOut:
    """Validation and test images.

    Attributes:
        names: (data set, id) -> part.
        contents: SHA-256 of the file -> where it is held out, in words.
    """

    names: Mapping[tuple[str, str], str]
    contents: Mapping[str, str]


def held_out(splits: Iterable[tuple[str, SampleColumns, Split]]) -> HeldOut:
    """The validation and test parts of data sets, each given by name, columns and split."""
    names: dict[tuple[str, str], str] = {}
    contents: dict[str, str] = {}
    for dataset, samples, split in splits:
        for part in ("val", "test"):
            for row in getattr(split, part):
                names[dataset, samples.ids[row]] = part
                contents[str(samples.sha256[row])] = f"{samples.ids[row]} in {part} of {dataset}"
    return HeldOut(names, contents)


def leaks(held: HeldOut, dataset: str, ids: Sequence[str], sha256: np.ndarray | Sequence[str]) -> list[str]:
    """Every image among those learned from that is held out, in words; empty if none.

    Args:
        held: what must not be learned from.
        dataset: where the images to be learned from lie.
        ids: their n names.
        sha256: their n digests.
    """
    found = []
    for name, digest in zip(ids, map(str, sha256), strict=True):
        if (dataset, name) in held.names:
            found.append(f"{dataset}: {name} is in {held.names[dataset, name]}")
        elif digest in held.contents:
            found.append(f"{dataset}: {name} has the content of {held.contents[digest]}")
    return found


def not_held_out(
    held: HeldOut, samples: SampleColumns, rows: np.ndarray
) -> tuple[np.ndarray, list[tuple[str, str]]]:
    """Rows whose content is not held out anywhere, and (id, reason) of the others."""
    kept, dropped = [], []
    for row in rows:
        reason = held.contents.get(str(samples.sha256[row]))
        if reason is None:
            kept.append(row)
        else:
            dropped.append((samples.ids[row], f"the same file as {reason}"))
    return np.asarray(kept, np.int64), dropped

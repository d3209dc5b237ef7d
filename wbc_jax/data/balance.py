"""Balanced training sets as SCAM makes them: rotated, flipped and shifted copies of the rarer classes' images."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from wbc_jax.data.packed import PackedStore, StoreWriter, open_store
from wbc_jax.data.samples import Sample
from wbc_jax.errors import DataError

MAX_SHIFT = 0.1
"""Largest shift either way, share of the side."""
_METHOD = "rotated, flipped and shifted copies, version 1"


@dataclass(frozen=True, kw_only=True, eq=False)
class BalancePlan:
    """Copies to be made.

    Attributes:
        source: int64 `(M,)`, which sample each copy is made of.
        copy: int64 `(M,)`, the how-manieth copy of that sample it is, from 1.
    """

    source: np.ndarray
    copy: np.ndarray


def balance_plan(labels: np.ndarray, target_per_class: int | None, seed: int) -> BalancePlan:
    """Copies that bring every class that occurs up to `target_per_class`; larger classes keep all they have.

    Every image of a class is copied k or k + 1 times; chance decides which.

    Args:
        labels: int `(N,)`.
        target_per_class: images of each class in the end; None: as many as the largest class has.
        seed: of the choice.
    """
    labels = np.asarray(labels)
    counts = {int(label): int(n) for label, n in zip(*np.unique(labels, return_counts=True), strict=True)}
    target = max(counts.values(), default=0) if target_per_class is None else target_per_class
    sources, copies = [], []
    for label, count in counts.items():
        members = np.flatnonzero(labels == label)
        missing = max(0, target - count)
        # A raw Philox stream stays the same in every NumPy version, other than Generator's methods.
        chance = np.random.Philox(np.random.SeedSequence([seed, label])).random_raw(count)
        order = members[np.argsort(chance, kind="stable")]
        sources.append(np.resize(order, missing))
        copies.append(1 + np.arange(missing) // count)
    if not sources:
        return BalancePlan(source=np.zeros(0, np.int64), copy=np.zeros(0, np.int64))
    return BalancePlan(
        source=np.concatenate(sources).astype(np.int64), copy=np.concatenate(copies).astype(np.int64)
    )


def write_balanced_store(
    store: PackedStore,
    rows: np.ndarray,
    labels: np.ndarray,
    directory: str | Path,
    seed: int,
    *,
    target_per_class: int | None = None,
) -> PackedStore:
    """A store of these training images followed by the copies that balance their classes.

    A store that is there already and was made from the same images in the same way is taken as it is. Copies
    belong to the group of their source, which gets its own id as a group when it has none.

    Args:
        store: holds the images.
        rows: int `(n,)`, training rows, and training rows only: copies of others would leak.
        labels: int `(n,)`, their task labels, which are balanced.
        directory: the new store.
        seed: of the choice and the changes.
        target_per_class: see `balance_plan`.

    Raises:
        DataError: when it cannot be written; see `write_store`.
        ValueError: rows and labels of different lengths, repeated rows or negative labels.
    """
    rows, labels = np.asarray(rows, np.int64), np.asarray(labels)
    if (
        rows.shape != labels.shape
        or rows.ndim != 1
        or len(np.unique(rows)) != len(rows)
        or np.any(labels < 0)
    ):
        raise ValueError("distinct rows (n,) with labels (n,) of 0 and above expected")
    origin = _origin(store, rows, labels, seed, target_per_class)
    present = _open_matching(directory, origin)
    if present is not None:
        return present
    plan = balance_plan(labels, target_per_class, seed)
    with StoreWriter(
        directory,
        size_px=store.size_px,
        framing="squash",
        dataset=store.dataset,
        class_names=store.class_names,
        expected_count=len(rows) + len(plan.source),
        derived_from=origin,
    ) as writer:
        for row in rows:
            writer.add_framed(_sample(store, int(row), 0), np.array(store.images[row]))
        for source, copy in zip(plan.source, plan.copy, strict=True):
            sample = _sample(store, int(rows[source]), int(copy))
            chance = _chance(seed, sample.id)
            writer.add_framed(sample, changed_copy(store.images[rows[source]], chance))
        return writer.finish()


def changed_copy(image: np.ndarray, chance: Sequence[float]) -> np.ndarray:
    """The image turned, perhaps mirrored, and shifted; what comes in at the borders is its reflection.

    Args:
        image: uint8 `(S, S, 3)`.
        chance: four numbers in [0, 1): angle in turns, mirror from 0.5 on, shift along x and y.

    Returns:
        uint8 `(S, S, 3)`.
    """
    side = image.shape[0]
    margin = math.ceil(side / 2)  # turned corners reach out by 0.21 of the side, the shift adds 0.1
    padded = np.pad(image, ((margin, margin), (margin, margin), (0, 0)), mode="symmetric")
    turn = 2 * math.pi * chance[0]
    cos, sin = math.cos(turn), math.sin(turn)
    mirror = -1.0 if chance[1] >= 0.5 else 1.0
    centre, padded_centre = side / 2, side / 2 + margin
    shift_x, shift_y = ((2 * part - 1) * MAX_SHIFT * side for part in chance[2:4])
    # Where the output pixel (x, y) comes from: turned about the centre, mirrored left to right, shifted.
    from_x = (mirror * cos, -mirror * sin, padded_centre + shift_x - mirror * centre * (cos - sin))
    from_y = (sin, cos, padded_centre + shift_y - centre * (sin + cos))
    picture = Image.fromarray(padded)
    return np.array(
        picture.transform((side, side), Image.Transform.AFFINE, (*from_x, *from_y), Image.Resampling.BILINEAR)
    )


def _sample(store: PackedStore, row: int, copy: int) -> Sample:
    """Labels of a row's image, or of its copy; pixels are handed over apart from it."""
    columns = store.samples
    name, sha256 = columns.ids[row], str(columns.sha256[row])
    return Sample(
        id=name if copy == 0 else f"{name}#copy{copy}",
        image=store.images[row],
        cell_class=columns.cell_classes[columns.cell_class[row]],
        attributes=tuple(int(value) for value in columns.attributes[row]),
        group=str(columns.groups[row]) or name,
        source_split="train",
        sha256=sha256 if copy == 0 else hashlib.sha256(f"{sha256}#copy{copy}".encode()).hexdigest(),
    )


def _chance(seed: int, name: str) -> list[float]:
    """Four numbers in [0, 1) that depend on seed and name alone."""
    digest = hashlib.sha256(f"{seed} balance {name}".encode("utf-8", "surrogateescape")).digest()
    return [int.from_bytes(digest[start : start + 6], "big") / 2**48 for start in range(0, 24, 6)]


def _origin(
    store: PackedStore, rows: np.ndarray, labels: np.ndarray, seed: int, target_per_class: int | None
) -> dict[str, Any]:
    chosen = hashlib.sha256(rows.astype("<i8").tobytes() + labels.astype("<i8").tobytes()).hexdigest()
    return {
        "store_digest": store.digest,
        "method": _METHOD,
        "rows_and_labels_sha256": chosen,
        "seed": seed,
        "target_per_class": target_per_class,
    }


def _open_matching(directory: str | Path, origin: dict[str, Any]) -> PackedStore | None:
    """The store that lies there, if it is sound in form and of this origin."""
    try:
        present = open_store(directory)
    except DataError:
        return None
    return present if present.derived_from == origin else None

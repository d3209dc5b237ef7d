"""What must stay together or apart: duplicates, groups, and the division of groups into parts of given shares."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from wbc_jax.data.samples import SampleColumns
from wbc_jax.errors import DataError

_ATTEMPTS = 50


@dataclass(frozen=True, kw_only=True)
class Unit:
    """Images that stay together.

    Attributes:
        key: names the unit, unique.
        rows: its images.
        counts: how many of them have each label.
    """

    key: str
    rows: tuple[int, ...]
    counts: Mapping[int, int]


def without_duplicates(
    samples: SampleColumns, labels: np.ndarray, supplied: Sequence[str], left_out: dict[str, str]
) -> list[int]:
    """Labelled rows in the order of their ids, one for each content: that in a supplied test or val part, or the first.

    Args:
        samples: N rows.
        labels: int `(N,)`; rows with -1 are not returned.
        supplied: N supplied parts, "" for none.
        left_out: gets the ids of duplicates and a reason.

    Raises:
        DataError: naming all identical images with different labels.
    """
    by_content: dict[str, list[int]] = defaultdict(list)
    for row in sorted(range(len(samples)), key=samples.ids.__getitem__):
        by_content[str(samples.sha256[row])].append(row)
    preference = {"test": 0, "val": 1, "train": 2, "": 3}
    conflicts, kept = [], []
    for rows in by_content.values():
        first, *others = sorted(rows, key=lambda row: preference[supplied[row]])
        if any(labels[row] != labels[first] for row in others):
            classes = [
                f"{samples.ids[row]} ({samples.cell_classes[samples.cell_class[row]]})" for row in rows
            ]
            conflicts.append(" = ".join(classes))
        if labels[first] >= 0:
            kept.append(first)
            left_out.update({samples.ids[row]: f"same content as {samples.ids[first]}" for row in others})
    if conflicts:
        raise DataError(
            "identical images with different labels:\n  " + "\n  ".join(conflicts),
            expected="one label for each image",
            remedy="correct the labels, or remove these images from the data set",
        )
    return sorted(kept, key=samples.ids.__getitem__)


def keep_groups_whole(parts: dict[str, list[int]], samples: SampleColumns, left_out: dict[str, str]) -> None:
    """Takes out of train and val what shares a group with test, and out of train what shares one with val.

    Supplied parts may do so; the test part stays as published. `left_out` gets the ids and a reason.
    """
    taken: dict[str, str] = {}
    for part in ("test", "val", "train"):
        kept = []
        for row in parts[part]:
            group = str(samples.groups[row])
            if group and taken.get(group, part) != part:
                left_out[samples.ids[row]] = f"its group {group} is in {taken[group]}"
            else:
                kept.append(row)
        taken.update({str(samples.groups[row]): part for row in kept if samples.groups[row]})
        parts[part] = kept


def divide(
    units: Sequence[Unit], shares: Sequence[int], seed: int, label_names: Mapping[int, str]
) -> list[list[int]]:
    """Rows of each part. Deterministic in `seed` and the units' keys, whatever the units' order.

    Units are taken from the largest to the smallest, equal ones by chance, and each goes to the part where it
    lowers the squared distance from the wanted counts most, relative to the size of the label. When all units
    hold a single image, every label is within one image of its share.

    Args:
        units: what is to be divided.
        shares: relative size of each part; a part of share 0 stays empty.
        seed: of the chance among equal units.
        label_names: what errors call the labels.

    Raises:
        DataError: when a label has fewer units than there are parts to be filled, or no division puts it in all.
    """
    filled = [part for part, share in enumerate(shares) if share > 0]
    available = Counter(label for unit in units for label in unit.counts)
    few = sorted(label for label, count in available.items() if count < len(filled))
    for attempt in range(_ATTEMPTS if not few else 0):
        parts, missing = _attempt(units, shares, filled, f"{seed} {attempt}", available)
        if not missing:
            return parts
        few = sorted(missing)
    listed = ", ".join(f"{label_names[label]} ({available[label]})" for label in few)
    raise DataError(
        f"too few images or groups to have each class in {len(filled)} parts: {listed}",
        expected=f"at least {len(filled)} of each class that can be separated",
        remedy="add images of these classes, choose a task without them, or supply train, val and test folders",
    )


def _attempt(
    units: Sequence[Unit],
    shares: Sequence[int],
    filled: Sequence[int],
    salt: str,
    available: Mapping[int, int],
) -> tuple[list[list[int]], set[int]]:
    """Rows of each part, and the labels that are not in all parts to be filled."""
    total: Counter[int] = Counter()
    for unit in units:
        total.update(unit.counts)
    # Missing images of each label in each part; below 0 when it has more than its share.
    deficit = [{label: n * share / sum(shares) for label, n in total.items()} for share in shares]
    missing = {label: set(filled) for label in total}
    remaining = dict(available)
    parts: list[list[int]] = [[] for _ in shares]

    def cost(unit: Unit, part: int) -> float:
        return sum(
            n * (n - 2 * deficit[part][label]) / total[label] for label, n in sorted(unit.counts.items())
        )

    for unit in sorted(units, key=lambda unit: (-len(unit.rows), _chance(salt, unit.key))):
        # A label whose last units are at hand must go where it is still missing.
        urgent = [label for label in unit.counts if remaining[label] <= len(missing[label])]
        part = min(filled, key=lambda p: (-sum(p in missing[label] for label in urgent), cost(unit, p), p))
        parts[part].extend(unit.rows)
        for label, n in unit.counts.items():
            deficit[part][label] -= n
            missing[label].discard(part)
            remaining[label] -= 1
    return parts, {label for label, where in missing.items() if where}


def _chance(salt: str, key: str) -> str:
    return hashlib.sha256(f"{salt} {key}".encode("utf-8", "surrogateescape")).hexdigest()

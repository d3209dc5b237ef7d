"""Which images train, validate and test: the papers' protocols, without duplicates, with groups kept whole.

A split depends on the images' names, digests, groups and labels, on the protocol and the seed, and on nothing else:
neither the order of the rows nor the library versions change it, because chance comes from SHA-256 of seed and name.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np

from wbc_jax.data.grouping import Unit, divide, keep_groups_whole, without_duplicates
from wbc_jax.data.samples import SampleColumns
from wbc_jax.errors import DataError

Protocol = Literal["given", "given_test", "random_311", "random_622"]
PROTOCOLS: tuple[str, ...] = get_args(Protocol)
PARTS = ("train", "val", "test")
_SHARES = {"given_test": (3, 1, 0), "random_311": (3, 1, 1), "random_622": (6, 2, 2)}
"""Shares of train, val and test among the images that the protocol distributes."""
_FORMAT, _VERSION = "wbc-jax split", 1
_JSON_KEYS = {
    "format", "version", "protocol", "seed", "store_digest", "digest", "train", "val", "test", "left_out",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Parts of a data set, each in the order of the images' ids.

    Attributes:
        train, val, test: int64 rows of the store.
        train_ids, val_ids, test_ids: the images' ids.
        protocol: how it was made.
        seed: of the random protocols.
        store_digest: the store that the rows point into.
        left_out: id -> reason, for images that a clean split cannot have: duplicates, and training images whose
            group is in a supplied validation or test part.
    """

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    train_ids: tuple[str, ...]
    val_ids: tuple[str, ...]
    test_ids: tuple[str, ...]
    protocol: str
    seed: int
    store_digest: str
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """See `split_digest`."""
        return split_digest({"train": self.train_ids, "val": self.val_ids, "test": self.test_ids})


def split_digest(parts: Mapping[str, Iterable[str]]) -> str:
    """SHA-256 over the ids of each part, in hexadecimal; the order of ids and of parts does not matter."""
    sha = hashlib.sha256()
    for part in PARTS:
        ids = sorted(parts[part])
        sha.update(f"{part} {len(ids)}\n".encode())
        for name in ids:
            encoded = name.encode("utf-8", "surrogateescape")
            sha.update(len(encoded).to_bytes(8, "big") + encoded)
    return sha.hexdigest()


def make_split(samples: SampleColumns, labels: np.ndarray, protocol: str, seed: int) -> Split:
    """Divides a data set into train, val and test.

    Protocols: "given" takes the supplied parts and leaves out images without one; without a supplied val it is
    "given_test". "given_test" keeps the supplied test part and divides the rest 3:1 into train and val (SCAM on
    BCCD and Raabin). "random_311" is 3:1:1 (SCAM on LDWBC and LISC), "random_622" 6:2:2 (DAFFNet, WBCs).
    Random parts are stratified by label, and images of one group stay together. Of identical images only the
    first by id is used, one in a supplied test or val part before others.

    Args:
        samples: the data set's columns, N rows.
        labels: int `(N,)`, task labels; images with label -1 are not used.
        protocol: one of the above.
        seed: changes the random protocols.

    Raises:
        DataError: identical images with two labels, a supplied part that is missing, or a class with too few
            images or groups to be in every part.
        ValueError: for an unknown protocol or labels of another length.
    """
    labels = np.asarray(labels)
    if protocol not in PROTOCOLS:
        raise ValueError(f"no split protocol {protocol!r}; one of {', '.join(PROTOCOLS)}")
    if labels.shape != (len(samples),):
        raise ValueError(f"labels ({len(samples)},) expected, got {labels.shape}")
    supplied = [str(name) if protocol in ("given", "given_test") else "" for name in samples.source_splits]
    left_out: dict[str, str] = {}
    rows = without_duplicates(samples, labels, supplied, left_out)
    if protocol == "given" and not any(supplied[row] == "val" for row in rows):
        protocol = "given_test"
    if protocol == "given":
        parts = {part: [row for row in rows if supplied[row] == part] for part in PARTS}
    elif protocol == "given_test":
        test = [row for row in rows if supplied[row] == "test"]
        parts = {"train": [row for row in rows if supplied[row] != "test"], "val": [], "test": test}
    else:
        parts = {"train": rows, "val": [], "test": []}
    _require_supplied(parts, protocol, seed)
    keep_groups_whole(parts, samples, left_out)
    if protocol in _SHARES:
        divided = _divide(parts["train"], samples, labels, _SHARES[protocol], seed)
        parts = {part: divided[part] or parts[part] for part in PARTS}
    return _split(parts, samples, protocol=protocol, seed=seed, left_out=left_out)


def limit_per_class(
    split: Split, labels: np.ndarray, n: int, seed: int, parts: tuple[str, ...] = ("train",)
) -> Split:
    """The split with at most `n` images of each class in each of `parts`, chosen by the seed.

    Args:
        split: the whole.
        labels: int `(N,)`, task labels of the store's rows.
        n: images kept of each class, at least 1.
        seed: of the choice. A larger n keeps what a smaller one keeps.
        parts: `train`, `val` or `test`; the others stay whole.
    """
    if n < 1:
        raise ValueError(f"at least one image of each class must stay, got {n}")
    limited = {}
    for part in parts:
        rows, ids = getattr(split, part), getattr(split, f"{part}_ids")
        by_class: dict[int, list[tuple[str, int]]] = defaultdict(list)
        for position, (row, name) in enumerate(zip(rows, ids, strict=True)):
            by_class[int(labels[row])].append((_chance(seed, "limit", name), position))
        kept = sorted(position for members in by_class.values() for _, position in sorted(members)[:n])
        limited |= {
            part: rows[np.asarray(kept, np.int64)],
            f"{part}_ids": tuple(ids[position] for position in kept),
        }
    return replace(split, **limited)


def check_leaks(split: Split, samples: SampleColumns) -> list[str]:
    """Every image, content or group that is in more than one part, or in one part twice, in words; empty if none."""
    problems = []
    for kind, values in (("image", samples.ids), ("content", samples.sha256), ("group", samples.groups)):
        seen: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        for part in PARTS:
            for row in getattr(split, part):
                if values[row]:
                    seen[str(values[row])][part].append(samples.ids[row])
        for value, by_part in sorted(seen.items()):
            repeated = kind != "group" and any(len(names) > 1 for names in by_part.values())
            if len(by_part) > 1 or repeated:
                where = ", ".join(f"{names[0]} in {part}" for part, names in by_part.items())
                problems.append(
                    f"{kind} {value[:40]} is used {'across parts' if not repeated else 'twice'}: {where}"
                )
    return problems


def split_to_json(split: Split) -> dict[str, Any]:
    """The split as plain values for a JSON file: ids, not rows, so that it holds for any store of the data set."""
    return {
        "format": _FORMAT,
        "version": _VERSION,
        "protocol": split.protocol,
        "seed": split.seed,
        "store_digest": split.store_digest,
        "digest": split.digest,
        "train": list(split.train_ids),
        "val": list(split.val_ids),
        "test": list(split.test_ids),
        "left_out": dict(split.left_out),
    }


def split_from_json(value: Any, samples: SampleColumns) -> Split:
    """Undoes `split_to_json` for the rows of `samples`, which may be those of a store of another image size.

    Raises:
        DataError: with every problem: unknown or missing keys, another version, ids that repeat or are not in the
            data set, or ids that do not fit the digest.
    """
    problems = _json_problems(value, set(samples.ids))
    if problems:
        raise DataError(
            "the split cannot be used:\n  " + "\n  ".join(problems),
            expected="a split file of this data set, as written",
            remedy="restore the file, or make the split again from its protocol and seed",
        )
    row_of = {name: row for row, name in enumerate(samples.ids)}
    parts = {part: [row_of[name] for name in value[part]] for part in PARTS}
    return _split(
        parts, samples, protocol=value["protocol"], seed=value["seed"], left_out=dict(value["left_out"])
    )


def _json_problems(value: Any, known_ids: set[str]) -> list[str]:
    if not isinstance(value, dict) or value.get("format") != _FORMAT or value.get("version") != _VERSION:
        return [f"it is not a split file of version {_VERSION}"]
    problems = [f"key {key!r} is missing" for key in sorted(_JSON_KEYS - set(value))]
    problems += [f"key {key!r} is unknown" for key in sorted(set(value) - _JSON_KEYS)]
    if problems:
        return problems
    if value["protocol"] not in PROTOCOLS:
        problems.append(f"protocol {value['protocol']!r} is none of {', '.join(PROTOCOLS)}")
    if type(value["seed"]) is not int:
        problems.append(f"seed {value['seed']!r} is not a whole number")
    if not isinstance(value["left_out"], dict):
        problems.append("left_out is not a mapping from ids to reasons")
    for part in PARTS:
        names = value[part]
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            return [*problems, f"{part} is not a list of ids"]
        problems += [
            f"{part} names {name!r}, which the data set does not have"
            for name in sorted(set(names) - known_ids)
        ]
    counts = Counter(name for part in PARTS for name in value[part])
    problems += [f"{name!r} occurs {count} times" for name, count in sorted(counts.items()) if count > 1]
    if split_digest(value) != value["digest"]:
        problems.append(f"the ids have digest {split_digest(value)}, not {value['digest']}")
    return problems


def _require_supplied(parts: Mapping[str, list[int]], protocol: str, seed: int) -> None:
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}")
    needed = ("train",) if protocol.startswith("random") else ("train", "test")
    missing = [part for part in needed if not parts[part]]
    if missing:
        raise DataError(
            f"no images for {' and '.join(missing)}",
            expected=f"images of the task's classes, with the parts that the protocol {protocol!r} takes as supplied",
            remedy="choose another task, or a random protocol: --data.split random_622",
        )


def _divide(
    rows: list[int], samples: SampleColumns, labels: np.ndarray, shares: tuple[int, ...], seed: int
) -> dict[str, list[int]]:
    members: dict[str, list[int]] = defaultdict(list)
    for row in rows:
        group = str(samples.groups[row])
        members[f"group {group}" if group else f"image {samples.ids[row]}"].append(row)
    units = [
        Unit(key=key, rows=tuple(found), counts=Counter(int(labels[row]) for row in found))
        for key, found in members.items()
    ]
    names = {
        label: "/".join(
            sorted({samples.cell_classes[samples.cell_class[row]] for row in rows if labels[row] == label})
        )
        for label in {int(labels[row]) for row in rows}
    }
    return dict(zip(PARTS, divide(units, shares, seed, names), strict=True))


def _split(
    parts: Mapping[str, list[int]],
    samples: SampleColumns,
    *,
    protocol: str,
    seed: int,
    left_out: dict[str, str],
) -> Split:
    train, val, test = (sorted(parts[part], key=samples.ids.__getitem__) for part in PARTS)
    return Split(
        train=np.asarray(train, np.int64),
        val=np.asarray(val, np.int64),
        test=np.asarray(test, np.int64),
        train_ids=tuple(samples.ids[row] for row in train),
        val_ids=tuple(samples.ids[row] for row in val),
        test_ids=tuple(samples.ids[row] for row in test),
        protocol=protocol,
        seed=seed,
        store_digest=samples.store_digest,
        left_out=dict(sorted(left_out.items())),
    )


def _chance(seed: int, purpose: str, name: str) -> str:
    return hashlib.sha256(f"{seed} {purpose} {name}".encode("utf-8", "surrogateescape")).hexdigest()

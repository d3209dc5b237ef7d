"""Splits against their definition, over many random data sets: no overlap, whole groups, even strata, any row order."""

from __future__ import annotations

import copy
import json
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from wbc_jax.data.samples import SampleColumns
from wbc_jax.data.splits import (
    PARTS,
    Split,
    check_leaks,
    limit_per_class,
    make_split,
    split_digest,
    split_from_json,
    split_to_json,
)
from wbc_jax.errors import DataError

CLASSES = ("a", "b", "c", "d", "e")
SHARES = {"random_311": (0.6, 0.2, 0.2), "random_622": (0.6, 0.2, 0.2)}


def columns(
    labels: np.ndarray | list[int],
    *,
    groups: list[str] | None = None,
    source_splits: list[str] | None = None,
    sha256: list[str] | None = None,
    ids: list[str] | None = None,
) -> SampleColumns:
    n = len(labels)
    return SampleColumns(
        ids=ids or [f"image_{i:04}" for i in range(n)],
        cell_classes=CLASSES,
        cell_class=np.maximum(np.asarray(labels, np.int32), 0),
        attributes=np.full((n, 11), -1, np.int32),
        groups=np.array(groups or [""] * n, np.str_),
        source_splits=np.array(source_splits or [""] * n, np.str_),
        sha256=np.array(sha256 or [f"digest {i}" for i in range(n)], np.str_),
        store_digest="store",
    )


def shuffled(samples: SampleColumns, labels: np.ndarray, seed: int) -> tuple[SampleColumns, np.ndarray]:
    order = np.random.default_rng(seed).permutation(len(samples))
    arrays = {
        name: getattr(samples, name)[order]
        for name in ("cell_class", "attributes", "groups", "source_splits", "sha256")
    }
    return replace(samples, ids=[samples.ids[i] for i in order], **arrays), labels[order]


def random_data_set(seed: int, *, grouped: bool) -> tuple[SampleColumns, np.ndarray]:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(60, 400))
    labels = rng.choice(5, n, p=rng.dirichlet(np.full(5, 2.0))).astype(np.int32)
    labels[:75] = np.arange(min(n, 75)) % 5
    labels[rng.random(n) < 0.1] = -1
    groups = [f"g{g}" if grouped and g >= 0 else "" for g in rng.integers(-20, max(30, n // 4), n)]
    return columns(labels, groups=groups), labels


def assert_sound(split: Split, samples: SampleColumns, labels: np.ndarray) -> None:
    """Definition of a split, by sets."""
    ids = {part: set(getattr(split, f"{part}_ids")) for part in PARTS}
    for part in PARTS:
        rows = getattr(split, part)
        assert rows.dtype == np.int64
        assert [samples.ids[row] for row in rows] == list(getattr(split, f"{part}_ids")) == sorted(ids[part])
        assert (labels[rows] >= 0).all()
    assert len(ids["train"] | ids["val"] | ids["test"]) == sum(len(v) for v in ids.values())
    groups = {part: {str(samples.groups[row]) for row in getattr(split, part)} - {""} for part in PARTS}
    assert not groups["train"] & groups["val"]
    assert not groups["train"] & groups["test"]
    assert not groups["val"] & groups["test"]
    assert check_leaks(split, samples) == []


@pytest.mark.parametrize("protocol", ["random_311", "random_622"])
@pytest.mark.parametrize("seed", range(25))
def test_random_split_without_groups(protocol: str, seed: int) -> None:
    samples, labels = random_data_set(seed, grouped=False)
    split = make_split(samples, labels, protocol, seed)
    assert_sound(split, samples, labels)
    assert sum(len(getattr(split, part)) for part in PARTS) == (labels >= 0).sum()
    for label in range(5):
        total = (labels == label).sum()
        for part, share in zip(PARTS, SHARES[protocol], strict=True):
            found = (labels[getattr(split, part)] == label).sum()
            assert found >= 1
            assert abs(found - share * total) < 1 + (total < 5)  # tiny classes must be in every part


@pytest.mark.parametrize("seed", range(25))
def test_random_split_with_groups(seed: int) -> None:
    samples, labels = random_data_set(seed, grouped=True)
    split = make_split(samples, labels, "random_622", seed)
    assert_sound(split, samples, labels)
    used = labels >= 0
    assert sum(len(getattr(split, part)) for part in PARTS) == used.sum()
    largest = max(Counter(g for g, u in zip(samples.groups, used, strict=True) if g and u).values())
    for part, share in zip(PARTS, SHARES["random_622"], strict=True):
        rows = getattr(split, part)
        assert abs(len(rows) - share * used.sum()) <= 2 * largest
        for label in range(5):
            assert (labels[rows] == label).sum() >= 1
            assert abs((labels[rows] == label).sum() - share * (labels == label).sum()) <= 2 * largest


def test_grouped_strata_are_as_even_as_scikit_learns() -> None:
    """Largest deviation of a class's share in the test part, over ten data sets, against StratifiedGroupKFold."""
    from sklearn.model_selection import StratifiedGroupKFold

    ours, theirs = [], []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        labels = rng.choice(5, 600, p=[0.05, 0.1, 0.15, 0.3, 0.4]).astype(np.int32)
        groups = rng.integers(0, 100, 600)
        samples = columns(labels, groups=[f"g{g}" for g in groups])
        totals = np.bincount(labels, minlength=5)

        def deviation(rows: np.ndarray, labels: np.ndarray = labels, totals: np.ndarray = totals) -> float:
            return float(np.abs(np.bincount(labels[rows], minlength=5) / totals - 0.2).max())

        ours.append(deviation(make_split(samples, labels, "random_622", seed).test))
        folds = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
        theirs.append(deviation(next(folds.split(labels, labels, groups))[1]))
    assert np.mean(ours) <= np.mean(theirs)


@pytest.mark.parametrize("grouped", [False, True])
def test_order_of_rows_does_not_matter_and_the_seed_does(grouped: bool) -> None:
    samples, labels = random_data_set(3, grouped=grouped)
    digests = {seed: make_split(samples, labels, "random_311", seed).digest for seed in range(8)}
    assert len(set(digests.values())) == 8
    for seed in range(8):
        again = make_split(*shuffled(samples, labels, seed), "random_311", seed)
        assert again.digest == digests[seed]


def test_pinned_digests() -> None:
    """Guards published splits: neither our code nor a library may change them."""
    labels = np.array([(i * i + 3 * i) % 4 for i in range(120)])
    samples = columns(labels, groups=["" if i % 3 else f"patient {i % 23}" for i in range(120)])
    found = {protocol: make_split(samples, labels, protocol, 7).digest for protocol in PINNED}
    assert found == PINNED


PINNED = {
    "random_311": "fa5b07c124f0a8495067d27e48d0d3ae19c03130203ad0d57f659623ebdee87a",
    "random_622": "fa5b07c124f0a8495067d27e48d0d3ae19c03130203ad0d57f659623ebdee87a",
}


def test_given_parts_are_kept() -> None:
    labels = np.array([0, 1, 0, 1, 0, 1, 0, 1, 0, 2])
    supplied = ["train", "train", "train", "train", "val", "val", "test", "test", "", ""]
    samples = columns(labels, source_splits=supplied)
    for seed in (0, 1):
        split = make_split(samples, labels, "given", seed)
        assert split.protocol == "given"
        assert split.train.tolist() == [0, 1, 2, 3]
        assert split.val.tolist() == [4, 5]
        assert split.test.tolist() == [6, 7]


@pytest.mark.parametrize("protocol", ["given", "given_test"])
def test_without_supplied_val_the_rest_is_three_to_one(protocol: str) -> None:
    labels = np.arange(100) % 2
    supplied = ["test"] * 20 + ["train"] * 60 + [""] * 20
    samples = columns(labels, source_splits=supplied)
    split = make_split(samples, labels, protocol, 0)
    assert split.protocol == "given_test"
    assert split.test.tolist() == list(range(20))
    assert (len(split.train), len(split.val)) == (60, 20)
    assert np.bincount(labels[split.train]).tolist() == [30, 30]
    assert_sound(split, samples, labels)


def test_given_test_divides_a_supplied_val_too() -> None:
    labels = np.zeros(20, int)
    samples = columns(labels, source_splits=["test"] * 4 + ["val"] * 8 + ["train"] * 8)
    split = make_split(samples, labels, "given_test", 1)
    assert (len(split.train), len(split.val), len(split.test)) == (12, 4, 4)


def test_supplied_parts_that_share_groups_are_cleaned_from_the_training_side() -> None:
    labels = np.zeros(8, int)
    groups = ["p", "q", "r", "", "q", "s", "p", "r"]
    supplied = ["train", "train", "train", "train", "val", "val", "test", "val"]
    samples = columns(labels, groups=groups, source_splits=supplied)
    split = make_split(samples, labels, "given", 0)
    assert split.test.tolist() == [6]
    assert split.val.tolist() == [4, 5, 7]
    assert split.train.tolist() == [3]
    assert sorted(split.left_out) == ["image_0000", "image_0001", "image_0002"]
    assert "group p is in test" in split.left_out["image_0000"]
    assert_sound(split, samples, labels)


@pytest.mark.parametrize("protocol", ["given", "given_test", "random_311"])
def test_missing_parts_are_named(protocol: str) -> None:
    samples = columns([0] * 9, source_splits=["train"] * 9)
    if protocol.startswith("random"):
        with pytest.raises(DataError, match="no images for train"):
            make_split(samples, np.full(9, -1), protocol, 0)
    else:
        with pytest.raises(DataError, match="no images for test") as caught:
            make_split(samples, np.zeros(9, int), protocol, 0)
        assert "random_622" in caught.value.remedy


def test_duplicates_are_used_once() -> None:
    labels = np.array([0, 0, 0, 0, 0, 0, 1, 1, 1])
    sha256 = ["x", "x", "u", "v", "x", "w", "k", "l", "m"]
    samples = columns(labels, sha256=sha256)
    for seed in range(5):
        split = make_split(samples, labels, "random_311", seed)
        assert split.left_out == {
            "image_0001": "same content as image_0000",
            "image_0004": "same content as image_0000",
        }
        assert_sound(split, samples, labels)
        assert make_split(*shuffled(samples, labels, seed), "random_311", seed).digest == split.digest


def test_a_duplicate_of_a_supplied_test_image_leaves_training() -> None:
    supplied = ["train", "val", "train", "test", "test", "train"]
    samples = columns([0] * 6, sha256=["x", "a", "b", "x", "c", "a"], source_splits=supplied)
    split = make_split(samples, np.zeros(6, int), "given", 0)
    assert split.test_ids == ("image_0003", "image_0004")
    assert split.val_ids == ("image_0001",)
    assert split.train_ids == ("image_0002",)
    assert split.left_out["image_0000"] == "same content as image_0003"


def test_conflicting_labels_name_all_images() -> None:
    samples = columns([0, 1, 2, 2, 0], sha256=["x", "x", "y", "y", "z"])
    with pytest.raises(DataError) as caught:
        make_split(samples, np.array([0, 1, 2, 2, 0]), "random_311", 0)
    assert "image_0000 (a) = image_0001 (b)" in str(caught.value)
    assert "image_0002" not in str(caught.value)
    with pytest.raises(DataError, match="image_0001"):  # also when the task leaves one of them out
        make_split(samples, np.array([0, -1, 2, 2, 0]), "random_311", 0)


def test_classes_of_three_images_are_in_every_part() -> None:
    labels = np.array([0] * 50 + [1] * 3 + [2] * 4)
    for seed in range(20):
        split = make_split(columns(labels), labels, "random_311", seed)
        for part in PARTS:
            assert set(labels[getattr(split, part)]) == {0, 1, 2}


def test_too_small_classes_are_all_named() -> None:
    labels = np.array([0] * 50 + [1] * 2 + [2] * 1 + [3] * 3)
    with pytest.raises(DataError, match=r"b \(2\), c \(1\)") as caught:
        make_split(columns(labels), labels, "random_311", 0)
    assert "d" not in caught.value.found.split(":")[1]
    grouped = columns([0] * 12, groups=["p"] * 6 + ["q"] * 6)
    with pytest.raises(DataError, match=r"a \(2\)"):
        make_split(grouped, np.zeros(12, int), "random_622", 0)
    supplied = columns([0] * 5, source_splits=["test"] * 4 + ["train"])
    with pytest.raises(DataError, match=r"a \(1\)"):
        make_split(supplied, np.zeros(5, int), "given_test", 0)


def test_groups_of_several_classes_are_placed_so_that_every_part_has_every_class() -> None:
    groups, labels = [], []
    for patient in range(9):
        held = [0, 1] if patient < 3 else [1, 2] if patient < 6 else [2, 0]
        labels += held * 5
        groups += [f"patient {patient}"] * 10
    array = np.array(labels)
    for seed in range(20):
        samples = columns(array, groups=groups)
        split = make_split(samples, array, "random_622", seed)
        assert_sound(split, samples, array)
        for part in PARTS:
            assert set(array[getattr(split, part)]) == {0, 1, 2}


def test_merged_classes_share_a_stratum() -> None:
    labels = np.array([0, 0, 0] * 10)
    samples = replace(columns(labels), cell_class=np.arange(30, dtype=np.int32) % 3)
    split = make_split(samples, labels, "random_622", 0)
    assert (len(split.train), len(split.val), len(split.test)) == (18, 6, 6)


def test_wrong_arguments() -> None:
    samples = columns([0] * 9)
    with pytest.raises(ValueError, match="no split protocol"):
        make_split(samples, np.zeros(9, int), "auto", 0)
    with pytest.raises(ValueError, match="labels"):
        make_split(samples, np.zeros(8, int), "random_311", 0)
    with pytest.raises(ValueError, match="seed"):
        make_split(samples, np.zeros(9, int), "random_311", -1)


def test_digest_depends_on_ids_and_parts_only() -> None:
    parts = {"train": ["a", "b"], "val": ["c"], "test": []}
    assert split_digest(parts) == split_digest({"test": [], "val": ["c"], "train": ["b", "a"]})
    others = [
        {"train": ["a"], "val": ["b", "c"], "test": []},
        {"train": ["ab"], "val": ["c"], "test": []},
        {"train": ["a", "b"], "val": [], "test": ["c"]},
        {"train": ["a\nb"], "val": ["c"], "test": []},
    ]
    assert len({split_digest(p) for p in [parts, *others]}) == 5


def test_leaks_are_found() -> None:
    labels = np.zeros(12, int)
    samples = columns(
        labels, groups=["p"] * 4 + [""] * 8, sha256=["x", "y", "z", "u", "x"] + [f"s{i}" for i in range(7)]
    )
    clean = make_split(columns(labels), labels, "random_622", 0)

    def leaking(train: list[int], val: list[int], test: list[int]) -> list[str]:
        return check_leaks(
            replace(clean, train=np.array(train), val=np.array(val), test=np.array(test)), samples
        )

    assert leaking([0, 1, 2], [5, 6], [7, 8]) == []
    (group,) = leaking([1, 2], [3], [7])
    assert "group p" in group
    assert "image_0001 in train" in group
    assert "image_0003 in val" in group
    (content,) = leaking([0, 1], [5], [4])
    assert "content x" in content
    assert len(leaking([5, 6], [7], [6])) == 2  # the image and its content
    assert "twice" in leaking([5, 5], [7], [8])[0]


def test_json_round_trip_for_a_store_of_another_size() -> None:
    samples, labels = random_data_set(1, grouped=True)
    split = make_split(samples, labels, "random_622", 5)
    text = json.dumps(split_to_json(split))
    other, other_labels = shuffled(replace(samples, store_digest="other size"), labels, 0)
    back = split_from_json(json.loads(text), other)
    assert_sound(back, other, other_labels)
    assert back.digest == split.digest
    assert (back.protocol, back.seed, back.left_out) == ("random_622", 5, split.left_out)
    for part in PARTS:
        assert getattr(back, f"{part}_ids") == getattr(split, f"{part}_ids")


def _extra(value: dict[str, Any]) -> None:
    value["notes"] = "x"


def _missing(value: dict[str, Any]) -> None:
    del value["seed"]


def _version(value: dict[str, Any]) -> None:
    value["version"] = 2


def _moved(value: dict[str, Any]) -> None:
    value["train"].append(value["val"].pop())


def _repeated(value: dict[str, Any]) -> None:
    value["train"].append(value["test"][0])


def _unknown(value: dict[str, Any]) -> None:
    value["val"][0] = "nobody"


def _numbers(value: dict[str, Any]) -> None:
    value["test"] = [1, 2]


def _protocol(value: dict[str, Any]) -> None:
    value["protocol"] = "mine"


def _seed(value: dict[str, Any]) -> None:
    value["seed"] = True


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_extra, "'notes' is unknown"),
        (_missing, "'seed' is missing"),
        (_version, "version 1"),
        (_moved, "digest"),
        (_repeated, "occurs 2 times"),
        (_unknown, "'nobody', which the data set does not have"),
        (_numbers, "test is not a list of ids"),
        (_protocol, "protocol 'mine'"),
        (_seed, "seed True"),
    ],
)
def test_changed_split_files_are_refused(change: Any, message: str) -> None:
    samples, labels = random_data_set(2, grouped=False)
    value = copy.deepcopy(split_to_json(make_split(samples, labels, "random_311", 0)))
    change(value)
    with pytest.raises(DataError, match=message):
        split_from_json(value, samples)
    with pytest.raises(DataError):
        split_from_json([], samples)


def test_limit_keeps_a_growing_set_of_each_class() -> None:
    samples, labels = random_data_set(4, grouped=False)
    split = make_split(samples, labels, "random_622", 0)
    kept: set[str] = set()
    for n in (1, 3, 8, 1000):
        limited = limit_per_class(split, labels, n, 0)
        assert limited.val_ids == split.val_ids
        assert limited.test_ids == split.test_ids
        counts, whole = Counter(labels[limited.train].tolist()), Counter(labels[split.train].tolist())
        assert counts == {label: min(n, count) for label, count in whole.items()}
        assert [samples.ids[row] for row in limited.train] == list(limited.train_ids)
        assert kept <= set(limited.train_ids)
        kept = set(limited.train_ids)
    assert kept == set(split.train_ids)
    assert limit_per_class(split, labels, 3, 0).train_ids != limit_per_class(split, labels, 3, 1).train_ids
    with pytest.raises(ValueError, match="at least one"):
        limit_per_class(split, labels, 0, 0)


def test_limit_applies_to_the_parts_asked_for() -> None:
    labels = np.repeat(np.arange(5), 40)
    samples = columns(labels)
    split = make_split(samples, labels, "random_622", 0)
    limited = limit_per_class(split, labels, 3, 0, parts=("val", "test"))
    assert limited.train_ids == split.train_ids
    for part in ("val", "test"):
        rows, ids = getattr(limited, part), getattr(limited, f"{part}_ids")
        assert Counter(labels[rows].tolist()) == dict.fromkeys(range(5), 3)
        assert [samples.ids[row] for row in rows] == list(ids)
        assert set(ids) < set(getattr(split, f"{part}_ids"))

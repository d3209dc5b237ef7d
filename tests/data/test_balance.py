"""Balancing: weights against scikit-learn, copies that balance, repeat exactly and cannot leak."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wbc_jax.data.balance import balance_plan, changed_copy, write_balanced_store
from wbc_jax.data.imbalance import class_weights, sampling_weights
from wbc_jax.data.packed import PackedStore, Sample, verify_store, write_store
from wbc_jax.data.splits import check_leaks, make_split

CLASSES = ("basophil", "lymphocyte", "neutrophil")
SIZE_PX = 12


@pytest.fixture
def store(tmp_path: Path) -> PackedStore:
    rng = np.random.default_rng(0)
    names = ["basophil"] * 3 + ["lymphocyte"] * 7 + ["neutrophil"] * 10
    samples = [
        Sample(
            id=f"{i}.png",
            image=rng.integers(0, 256, (SIZE_PX, SIZE_PX, 3), dtype=np.uint8),
            cell_class=name,
            attributes=(i % 2,) * 11,
            group="patient" if i in (4, 5) else "",
            sha256=hashlib.sha256(bytes([i])).hexdigest(),
        )
        for i, name in enumerate(names)
    ]
    return write_store(
        tmp_path / "source", samples, size_px=SIZE_PX, framing="squash", dataset="toy", class_names=CLASSES
    )


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("target", [None, 1, 12, 50])
def test_plan_fills_every_class(seed: int, target: int | None) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.choice([0, 1, 3], 60, p=[0.1, 0.3, 0.6])
    plan = balance_plan(labels, target, seed)
    before, copies = Counter(labels.tolist()), Counter(labels[plan.source].tolist())
    wanted = max(before.values()) if target is None else target
    for label, count in before.items():
        assert count + copies[label] == max(count, wanted)
        uses = Counter(plan.source[labels[plan.source] == label].tolist())
        each = [uses[int(source)] for source in np.flatnonzero(labels == label)]
        assert max(each) - min(each) <= 1
    for source, times in Counter(plan.source.tolist()).items():
        assert sorted(plan.copy[plan.source == source]) == list(range(1, times + 1))


def test_plan_is_repeatable_and_follows_the_seed() -> None:
    labels = np.array([0] * 10 + [1] * 25)
    first, again, other = (balance_plan(labels, None, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.source, again.source)
    assert first.source.tolist() != other.source.tolist()
    assert first.source.tolist()[:5] == PINNED_SOURCES
    assert len(balance_plan(np.array([], int), None, 0).source) == 0


PINNED_SOURCES = [0, 8, 9, 3, 7]


def test_copies_are_rotations_mirrors_and_shifts() -> None:
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    np.testing.assert_array_equal(changed_copy(image, (0.0, 0.0, 0.5, 0.5)), image)
    np.testing.assert_array_equal(changed_copy(image, (0.0, 0.9, 0.5, 0.5)), image[:, ::-1])
    # sin and cos of these are not exactly 0 and 1, so a value may fall to the next lower one.
    np.testing.assert_allclose(changed_copy(image, (0.5, 0.0, 0.5, 0.5)), image[::-1, ::-1], atol=1)
    quarter = changed_copy(image, (0.25, 0.0, 0.5, 0.5)).astype(int)
    assert min(np.abs(quarter - np.rot90(image, k)).max() for k in (1, 3)) <= 1


def test_shift_fills_the_border_by_reflection() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    padded = np.pad(image, ((4, 4), (4, 4), (0, 0)), mode="symmetric")
    shifted = changed_copy(image, (0.0, 0.0, 1.0, 0.5))  # 0.1 of 40 px
    np.testing.assert_array_equal(shifted, padded[4:-4, 8:])
    np.testing.assert_array_equal(changed_copy(image, (0.0, 0.0, 0.5, 0.0)), padded[:40, 4:-4])


@pytest.mark.parametrize("side", [1, 2, 5, 33, 64])
def test_no_turn_shows_anything_from_outside(side: int) -> None:
    image = np.full((side, side, 3), 200, np.uint8)
    for turn in np.linspace(0, 1, 17, endpoint=False):
        for shift in (0.0, 0.999):
            assert (changed_copy(image, (turn, shift, shift, shift)) == 200).all()


def test_rotation_equals_scikit_image() -> None:
    from skimage.transform import rotate

    y, x = np.mgrid[:64, :64]
    smooth = np.stack([128 + 80 * np.sin(x / 9), 128 + 80 * np.cos(y / 7), 2 * x + y], axis=2).astype(
        np.uint8
    )
    found = changed_copy(smooth, (30 / 360, 0.0, 0.5, 0.5)).astype(float)
    inside = (x - 31.5) ** 2 + (y - 31.5) ** 2 < 28**2
    differences = [
        np.abs(found - rotate(smooth, angle, order=1, preserve_range=True))[inside].max()
        for angle in (30, -30)
    ]
    assert min(differences) <= 2
    assert max(differences) > 20


def balanced(store: PackedStore, directory: Path, **changes: Any) -> PackedStore:
    rows = np.array([0, 1, 3, 4, 5, 6, 10, 11, 12, 13, 14])
    arguments = {"rows": rows, "labels": store.samples.cell_class[rows], "seed": 0} | changes
    return write_balanced_store(store, directory=directory, **arguments)


def test_balanced_store_holds_originals_and_copies(store: PackedStore, tmp_path: Path) -> None:
    result = balanced(store, tmp_path / "balanced")
    assert np.bincount(result.samples.cell_class).tolist() == [5, 5, 5]
    rows = [store.samples.ids.index(name) for name in result.samples.ids[:11]]
    np.testing.assert_array_equal(result.images[:11], store.images[rows])
    assert set(result.samples.source_splits) == {"train"}
    assert result.digest != store.digest
    assert result.derived_from is not None
    assert result.derived_from["store_digest"] == store.digest
    assert verify_store(tmp_path / "balanced") == []
    for row in range(11, 15):
        source = store.samples.ids.index(result.samples.ids[row].split("#copy")[0])
        assert result.samples.cell_class[row] == store.samples.cell_class[source]
        np.testing.assert_array_equal(result.samples.attributes[row], store.samples.attributes[source])
        assert (result.images[row] != store.images[source]).any()
        assert source in rows


def test_copies_cannot_leak(store: PackedStore, tmp_path: Path) -> None:
    """Even if someone splits the balanced store again, a copy stays with its source."""
    result = balanced(store, tmp_path / "balanced", target_per_class=12)
    assert len(set(result.samples.sha256)) == len(result)
    for row, name in enumerate(result.samples.ids):
        source = result.samples.ids.index(name.split("#copy")[0])
        assert result.samples.groups[row] == result.samples.groups[source] != ""
    assert result.samples.groups[result.samples.ids.index("4.png")] == "patient"
    keep = np.where(result.samples.cell_class == 0, -1, result.samples.cell_class)  # two sources are too few
    for seed in range(5):
        assert check_leaks(make_split(result.samples, keep, "random_622", seed), result.samples) == []


def test_balanced_store_is_repeatable_and_reused(
    store: PackedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = balanced(store, tmp_path / "first")
    assert balanced(store, tmp_path / "second").digest == first.digest
    assert balanced(store, tmp_path / "third", seed=1).digest != first.digest
    written = (tmp_path / "first" / "store.json").stat().st_mtime_ns
    assert balanced(store, tmp_path / "first").digest == first.digest
    assert (tmp_path / "first" / "store.json").stat().st_mtime_ns == written
    other = balanced(store, tmp_path / "first", target_per_class=7)
    assert np.bincount(other.samples.cell_class).tolist() == [7, 7, 7]


def test_merged_labels_are_balanced_as_the_task_has_them(store: PackedStore, tmp_path: Path) -> None:
    rows = np.arange(20)
    labels = np.where(store.samples.cell_class == 0, 0, 1)
    result = balanced(store, tmp_path / "balanced", rows=rows, labels=labels)
    assert np.bincount(result.samples.cell_class).tolist() == [17, 7, 10]


@pytest.mark.parametrize(
    "changes",
    [
        {"rows": np.array([0, 0, 1]), "labels": np.array([0, 0, 0])},
        {"rows": np.array([0, 1]), "labels": np.array([0])},
        {"rows": np.array([0, 1]), "labels": np.array([0, -1])},
    ],
)
def test_wrong_rows_are_refused(store: PackedStore, tmp_path: Path, changes: dict) -> None:
    with pytest.raises(ValueError, match="distinct rows"):
        balanced(store, tmp_path / "balanced", **changes)


def test_class_weights_equal_scikit_learn() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    labels = np.random.default_rng(0).choice(4, 200, p=[0.5, 0.3, 0.15, 0.05])
    expected = compute_class_weight("balanced", classes=np.arange(4), y=labels)
    found = class_weights(labels, 4)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(found[labels].mean(), 1.0, rtol=1e-6)


def test_sampling_weights_draw_each_class_equally() -> None:
    labels = np.array([0] * 90 + [2] * 9 + [4])
    weights = sampling_weights(labels)
    assert weights.dtype == np.float64
    assert weights.sum() == pytest.approx(1.0)
    for label in (0, 2, 4):
        assert weights[labels == label].sum() == pytest.approx(1 / 3)


def test_absent_classes_and_wrong_labels() -> None:
    np.testing.assert_allclose(class_weights(np.array([0, 0, 2]), 4), [0.75, 0, 1.5, 0])
    with pytest.raises(ValueError, match="outside"):
        class_weights(np.array([0, 4]), 4)
    for weights in (sampling_weights, lambda labels: class_weights(labels, 3)):
        for labels in (np.array([], int), np.array([0, -1]), np.zeros((2, 2), int)):
            with pytest.raises(ValueError, match="labels"):
                weights(labels)

"""Intervals and tests against formulas written out by hand, scikit-learn, and repeated experiments."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from wbc_jax.evaluate.statistics import (
    difference_of_shares,
    gap_sentence,
    mcnemar,
    mean_interval,
    paired_bootstrap,
    wilson,
)


def test_mean_interval_uses_students_t() -> None:
    values = [0.90, 0.92, 0.97]
    found = mean_interval(values)
    half = 4.302652729911275 * np.std(values, ddof=1) / math.sqrt(3)  # t(0.975, 2) from tables
    assert found.value == pytest.approx(0.93)
    assert (found.low, found.high) == (pytest.approx(0.93 - half), pytest.approx(0.93 + half))


def test_one_seed_has_no_interval() -> None:
    with pytest.raises(ValueError, match="1 values"):
        mean_interval([0.5])


def test_wilson_by_its_formula() -> None:
    hits, total, z = 42, 47, 1.959963984540054
    p = hits / total
    centre = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total)) / (1 + z * z / total)
    found = wilson(hits, total)
    assert (found.low, found.high) == (pytest.approx(centre - half), pytest.approx(centre + half))
    with pytest.raises(ValueError):
        wilson(3, 2)


def test_newcombe_gives_the_published_example() -> None:
    """56/70 against 48/80: 0.0524 to 0.3339 (Newcombe 1998, Table II, method 10)."""
    found = difference_of_shares(56, 70, 48, 80)
    assert found.value == pytest.approx(0.2)
    assert (found.low, found.high) == (pytest.approx(0.0524, abs=5e-5), pytest.approx(0.3339, abs=5e-5))


def test_gap_sentence_tells_noise_from_a_gap() -> None:
    assert gap_sentence("DAFFNet", 91.30, "ResNet50", 87.23, 47).endswith("within noise.")
    assert gap_sentence("WBC-AMNet", 95.66, "VGG", 50.02, 2487).endswith("more than chance.")
    assert "41 of 47" in gap_sentence("ResNet50", 87.23, "x", 85.11, 47)


def test_mcnemar_by_hand() -> None:
    right_a = np.asarray([True] * 50 + [True] * 12 + [False] * 3 + [False] * 5)
    right_b = np.asarray([True] * 50 + [False] * 12 + [True] * 3 + [False] * 5)
    found = mcnemar(right_a, right_b)
    assert (found.both, found.only_a, found.only_b, found.neither) == (50, 12, 3, 5)
    assert found.exact_p == pytest.approx(2 * sum(math.comb(15, k) for k in range(4)) / 2**15)
    assert found.chi_square == pytest.approx((9 - 1) ** 2 / 15)
    assert found.chi_square_p == pytest.approx(math.erfc(math.sqrt(found.chi_square / 2)))


def test_mcnemar_of_equal_classifiers_finds_nothing() -> None:
    right = np.asarray([True, False, True])
    found = mcnemar(right, right)
    assert (found.exact_p, found.chi_square, found.chi_square_p) == (1.0, 0.0, 1.0)


def test_paired_bootstrap_agrees_with_drawing_images() -> None:
    random = np.random.default_rng(3)
    labels = random.integers(0, 3, 200)
    a = np.where(random.random(200) < 0.9, labels, random.integers(0, 3, 200))
    b = np.where(random.random(200) < 0.7, labels, random.integers(0, 3, 200))
    found = paired_bootstrap(labels, a, b, 3, samples=4000)
    assert found["accuracy"].value == pytest.approx(accuracy_score(labels, a) - accuracy_score(labels, b))
    macro = [f1_score(labels, p, average="macro") for p in (a, b)]
    assert found["macro_f1"].value == pytest.approx(macro[0] - macro[1])
    drawn = []
    for _ in range(4000):
        rows = random.integers(0, 200, 200)
        drawn.append((a[rows] == labels[rows]).mean() - (b[rows] == labels[rows]).mean())
    low, high = np.percentile(drawn, [2.5, 97.5])
    assert (found["accuracy"].low, found["accuracy"].high) == (
        pytest.approx(low, abs=0.01),
        pytest.approx(high, abs=0.01),
    )


def test_paired_bootstrap_of_a_classifier_with_itself_is_exactly_zero() -> None:
    labels = np.asarray([0, 1, 1, 2, 0])
    same = np.asarray([0, 1, 2, 2, 1])
    gap = paired_bootstrap(labels, same, same, 3, samples=50)["accuracy"]
    assert (gap.value, gap.low, gap.high) == (0.0, 0.0, 0.0)

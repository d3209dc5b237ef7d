"""How much a score, or a gap between two scores, can be trusted: intervals, tests, and a sentence for the reader.

Several seeds of one recipe give a mean with a t interval; two runs on the same images are compared image by image
(McNemar 1947; paired bootstrap); published accuracies, of which only the share is known, are compared by the Wilson
intervals of their hits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wbc_jax.evaluate import confusion

LEVEL = 0.95
"""Level of every interval here."""


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval."""

    value: float
    low: float
    high: float


def mean_interval(values: Sequence[float]) -> Interval:
    """Mean of one score over seeds and its 95 % t interval.

    Raises:
        ValueError: fewer than two values, which have no spread.
    """
    from scipy import stats

    if len(values) < 2:
        raise ValueError(f"an interval from {len(values)} values")
    numbers = np.asarray(values, dtype=float)
    mean = float(numbers.mean())
    half = float(
        stats.t.ppf((1 + LEVEL) / 2, len(numbers) - 1) * numbers.std(ddof=1) / math.sqrt(len(numbers))
    )
    return Interval(mean, mean - half, mean + half)


def wilson(hits: int, total: int) -> Interval:
    """Share of hits and its 95 % Wilson score interval (Wilson 1927).

    Raises:
        ValueError: no trials, or more hits than trials.
    """
    from scipy import stats

    if not 0 <= hits <= total or total == 0:
        raise ValueError(f"{hits} hits of {total}")
    found = stats.binomtest(hits, total).proportion_ci(LEVEL, method="wilson")
    return Interval(hits / total, float(found.low), float(found.high))


def difference_of_shares(hits_a: int, total_a: int, hits_b: int, total_b: int) -> Interval:
    """Share a minus share b of two independent samples, 95 % interval of Newcombe (1998), method 10."""
    a, b = wilson(hits_a, total_a), wilson(hits_b, total_b)
    low = a.value - b.value - math.hypot(a.value - a.low, b.high - b.value)
    high = a.value - b.value + math.hypot(a.high - a.value, b.value - b.low)
    return Interval(a.value - b.value, low, high)


def gap_sentence(name_a: str, percent_a: float, name_b: str, percent_b: float, total: int) -> str:
    """Whether a gap between two published accuracies on test sets of `total` images is more than chance.

    Which images each method had right is not published, so the two are taken as independent.

    Args:
        name_a, name_b: the two methods.
        percent_a, percent_b: their accuracies, percent.
        total: images of the paper's test set.
    """
    hits_a, hits_b = round(percent_a * total / 100), round(percent_b * total / 100)
    gap = difference_of_shares(hits_a, total, hits_b, total)
    verdict = "within noise" if gap.low <= 0 <= gap.high else "more than chance"
    return (
        f"{name_a} {percent_a:.2f} % ({hits_a} of {total}) against {name_b} {percent_b:.2f} % ({hits_b}): "
        f"{100 * gap.value:+.2f} points, 95 % interval {100 * gap.low:+.2f} to {100 * gap.high:+.2f}: {verdict}."
    )


@dataclass(frozen=True, kw_only=True)
class McNemar:
    """Two classifiers on the same images, by the images on which exactly one of them is right.

    Attributes:
        both, only_a, only_b, neither: numbers of images.
        exact_p: two-sided binomial test of only_a against only_b.
        chi_square: statistic with continuity correction (Edwards 1948), one degree of freedom.
        chi_square_p: its p value.
    """

    both: int
    only_a: int
    only_b: int
    neither: int
    exact_p: float
    chi_square: float
    chi_square_p: float


def mcnemar(right_a: np.ndarray, right_b: np.ndarray) -> McNemar:
    """McNemar's test, exact and by chi-square.

    Args:
        right_a, right_b: bool `(N,)`, whether each classifier has each image right.
    """
    from scipy import stats

    right_a, right_b = np.asarray(right_a, bool), np.asarray(right_b, bool)
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    apart = only_a + only_b
    statistic = max(0, abs(only_a - only_b) - 1) ** 2 / apart if apart else 0.0
    return McNemar(
        both=int((right_a & right_b).sum()),
        only_a=only_a,
        only_b=only_b,
        neither=int((~right_a & ~right_b).sum()),
        exact_p=float(stats.binomtest(only_a, apart).pvalue) if apart else 1.0,
        chi_square=float(statistic),
        chi_square_p=float(stats.chi2.sf(statistic, 1)),
    )


def paired_bootstrap(
    labels: np.ndarray,
    predicted_a: np.ndarray,
    predicted_b: np.ndarray,
    num_classes: int,
    *,
    samples: int = 10_000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Score of a minus score of b with 95 % percentile intervals, images drawn with replacement.

    Drawing images is a multinomial draw over (true, a, b), so both classifiers see the same resample.

    Args:
        labels, predicted_a, predicted_b: int `(N,)` in `range(num_classes)`.
        num_classes: K.
        samples: resamples.
        seed: of the resamples.

    Returns:
        Difference of each score of `confusion.scores`.
    """
    shape = (num_classes,) * 3
    cells = np.bincount(
        np.ravel_multi_index((labels, predicted_a, predicted_b), shape), minlength=num_classes**3
    )
    used = np.flatnonzero(cells)  # most of the K³ cells are empty
    rng = np.random.default_rng(seed)
    draws = np.zeros((samples, num_classes**3), np.int64)
    draws[:, used] = rng.multinomial(len(labels), cells[used] / len(labels), size=samples)

    def differences(counts: np.ndarray) -> dict[str, np.ndarray]:
        joint = counts.reshape(-1, *shape)  # (samples, true, a, b)
        a, b = confusion.scores(joint.sum(axis=3)), confusion.scores(joint.sum(axis=2))
        return {name: a[name] - b[name] for name in a}

    observed, resampled = differences(cells), differences(draws)
    tail = 100 * (1 - LEVEL) / 2
    return {
        name: Interval(
            float(observed[name][0]),
            float(np.percentile(values, tail)),
            float(np.percentile(values, 100 - tail)),
        )
        for name, values in resampled.items()
    }

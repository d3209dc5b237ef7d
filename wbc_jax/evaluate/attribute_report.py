"""Everything that one evaluation states about the morphological attributes, with the two baselines beside it.

Scores that follow from counts come from `attributes`; ROC areas come from scikit-learn.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from wbc_jax.catalog import ABSENT, ATTRIBUTES, Attribute
from wbc_jax.evaluate import attributes as scoring
from wbc_jax.evaluate.report import class_auc, mean_auc
from wbc_jax.models.attribute_groups import GROUP_SLICES

PUBLISHED = {"attribute_accuracy": 0.9409, "attribute_macro_f1": 0.9127}
"""WBCAtt's own baseline, a ResNet50, on its official test of 3,099 images (Tsutsui et al. 2023): the bar."""

_RESAMPLED_IMAGES = 4_000_000
"""Images drawn at a time, so that memory stays small on large sets."""


@dataclass(frozen=True, kw_only=True)
class AttributeEvaluation:
    """Predicted attributes of one set of images and all that follows from them.

    Attributes:
        truth: int `(n, 11)`, -1 where not annotated; n images that annotate at least one attribute.
        predicted: int `(n, 11)`.
        counts: confusion matrix `(V, V)` of each attribute, rows true, columns predicted.
        overall: score name -> value.
        intervals: score name -> (low, high), 95 % bootstrap percentile interval over images; empty when not asked
            for.
        per_attribute: attribute name -> score name -> value; an attribute that no image annotates is left out, and
            `auc` is None where only one value occurs.
        baselines: `majority` and `class_only` -> overall scores; empty without annotated training images.
        baseline_accuracy: baseline -> attribute name -> accuracy.
    """

    truth: np.ndarray
    predicted: np.ndarray
    counts: tuple[np.ndarray, ...]
    overall: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    per_attribute: dict[str, dict[str, float | None]]
    baselines: dict[str, dict[str, float]]
    baseline_accuracy: dict[str, dict[str, float]]

    def to_json(self) -> dict[str, Any]:
        """The numbers, ready for metrics.json."""
        return {
            "count": len(self.truth),
            "labels": int((self.truth != ABSENT).sum()),
            "hits": int(sum(np.trace(c) for c in self.counts)),
            "overall": self.overall,
            "intervals_95": {name: list(pair) for name, pair in self.intervals.items()},
            "per_attribute": self.per_attribute,
            "baselines": self.baselines,
            "baseline_accuracy": self.baseline_accuracy,
            "published_official_test": PUBLISHED,
            "confusion": {
                attribute.name: {"values": list(attribute.values), "counts": counts.tolist()}
                for attribute, counts in zip(ATTRIBUTES, self.counts, strict=True)
            },
        }


def evaluate_attributes(
    truth: np.ndarray,
    probabilities: np.ndarray,
    labels: np.ndarray,
    baselines: scoring.Baselines | None = None,
    *,
    bootstrap_samples: int = 1000,
    seed: int = 0,
) -> AttributeEvaluation:
    """All scores of predicted attributes; images that annotate none count for nothing.

    Args:
        truth: int `(N, 11)`, value indices, -1 where not annotated; at least one image annotates something.
        probabilities: float `(N, 31)`, the groups side by side, each adding up to 1.
        labels: int `(N,)`, true cell classes, for the class-only baseline.
        baselines: fitted on training rows; None: none were annotated.
        bootstrap_samples: resamples behind the intervals; 0: no intervals.
        seed: seed of the resamples.
    """
    known = (truth != ABSENT).any(axis=1)
    truth, probabilities, labels = truth[known], probabilities[known], labels[known]
    predicted = scoring.predicted_values(probabilities)
    counts = scoring.value_counts(truth, predicted)
    per_attribute = _per_attribute(truth, probabilities, counts)
    others = {} if baselines is None else baselines.predict(labels)
    overall = _overall(truth, predicted)
    areas = [row["auc"] for row in per_attribute.values() if row["auc"] is not None]
    if areas:
        overall["attribute_auc"] = float(np.mean(areas))
    return AttributeEvaluation(
        truth=truth,
        predicted=predicted,
        counts=counts,
        overall=overall,
        intervals=_intervals(truth, predicted, bootstrap_samples, seed) if bootstrap_samples else {},
        per_attribute=per_attribute,
        baselines={name: _overall(truth, values) for name, values in others.items()},
        baseline_accuracy={name: _accuracies(truth, values) for name, values in others.items()},
    )


def _overall(truth: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    scores = scoring.mean_scores(scoring.value_counts(truth, predicted))
    scores |= scoring.sample_scores(truth, predicted)
    return {name: float(value) for name, value in scores.items()}


def _accuracies(truth: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    known = truth != ABSENT
    return {
        attribute.name: float((truth == predicted)[known[:, i], i].mean())
        for i, attribute in enumerate(ATTRIBUTES)
        if known[:, i].any()
    }


def _per_attribute(
    truth: np.ndarray, probabilities: np.ndarray, counts: tuple[np.ndarray, ...]
) -> dict[str, dict[str, float | None]]:
    rows: dict[str, dict[str, float | None]] = {}
    for column, (attribute, part) in enumerate(zip(ATTRIBUTES, GROUP_SLICES, strict=True)):
        known = truth[:, column] != ABSENT
        if not known.any():
            continue
        area = _area(attribute, truth[known, column], probabilities[known, part])
        scores = scoring.attribute_scores(attribute, counts[column])
        row = {name: float(scores[name]) for name in scoring.SCORES}
        rows[attribute.name] = {"support": float(known.sum()), **row, "auc": area}
    return rows


def _area(attribute: Attribute, truth: np.ndarray, probabilities: np.ndarray) -> float | None:
    """ROC area of the positive value, or the support-weighted mean of the one-vs-rest areas."""
    areas = class_auc(truth, probabilities)
    if attribute.name in scoring.POSITIVE_VALUES:
        return areas[attribute.encode(scoring.POSITIVE_VALUES[attribute.name])]
    return mean_auc(areas, np.bincount(truth, minlength=probabilities.shape[1])).get("auc_weighted")


def _intervals(
    truth: np.ndarray, predicted: np.ndarray, samples: int, seed: int
) -> dict[str, tuple[float, float]]:
    """Percentile intervals; whole images are drawn, for the attributes of one image go together."""
    parts = [
        scoring.mean_scores(scoring.resampled_counts(truth, predicted, weights))
        | scoring.sample_scores(truth, predicted, weights)
        for weights in _draws(len(truth), samples, seed)
    ]
    found = {}
    for name in parts[0]:
        low, high = np.percentile(np.concatenate([part[name] for part in parts]), [2.5, 97.5])
        found[name] = (float(low), float(high))
    return found


def _draws(images: int, samples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each resample drew each image, float `(r, images)`, a few resamples at a time."""
    rng = np.random.default_rng(seed)
    step = max(1, _RESAMPLED_IMAGES // images)
    for start in range(0, samples, step):
        size = min(step, samples - start)
        yield rng.multinomial(images, np.full(images, 1 / images), size=size).astype(float)

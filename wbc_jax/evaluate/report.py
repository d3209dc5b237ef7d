"""Everything that one evaluation states: overall scores with intervals, per-class scores, ranking scores.

Scores that follow from counts come from `confusion`; ROC areas come from scikit-learn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from wbc_jax.evaluate import confusion
from wbc_jax.evaluate.calibration import expected_calibration_error, negative_log_likelihood


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Predictions on one set of images and all that follows from them.

    Attributes:
        class_names: output classes, K of them.
        labels: int `(N,)`, true classes.
        probabilities: float `(N, K)`.
        counts: confusion matrix `(K, K)`, rows true, columns predicted.
        overall: score name -> value.
        intervals: score name -> (low, high), 95 % bootstrap percentile interval; empty when not asked for.
        per_class: class name -> score name -> value; `auc` is None for a class without samples on either side.
    """

    class_names: tuple[str, ...]
    labels: np.ndarray
    probabilities: np.ndarray
    counts: np.ndarray
    overall: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    per_class: dict[str, dict[str, float | None]]

    def to_json(self) -> dict[str, Any]:
        """The numbers, ready for metrics.json."""
        return {
            "count": len(self.labels),
            "hits": int(np.trace(self.counts)),
            "overall": self.overall,
            "intervals_95": {name: list(pair) for name, pair in self.intervals.items()},
            "per_class": self.per_class,
            "confusion": {"classes": list(self.class_names), "counts": self.counts.tolist()},
        }


def evaluate_predictions(
    labels: np.ndarray,
    probabilities: np.ndarray,
    class_names: tuple[str, ...],
    *,
    bootstrap_samples: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """All scores of predictions.

    Args:
        labels: int `(N,)`, N at least 1.
        probabilities: float `(N, K)`, rows add up to 1.
        class_names: the K classes.
        bootstrap_samples: resamples behind the intervals; 0: no intervals.
        seed: seed of the resamples.
    """
    num_classes = len(class_names)
    predicted = probabilities.argmax(axis=1)
    counts = confusion.confusion_counts(labels, predicted, num_classes)
    areas = class_auc(labels, probabilities)
    overall = {name: float(value) for name, value in confusion.scores(counts).items()}
    overall |= mean_auc(areas, confusion.support(counts))
    overall["ece"] = expected_calibration_error(probabilities, labels)
    overall["loss"] = negative_log_likelihood(probabilities, labels)
    return Evaluation(
        class_names=class_names,
        labels=labels,
        probabilities=probabilities,
        counts=counts,
        overall=overall,
        intervals=bootstrap_intervals(counts, bootstrap_samples, seed) if bootstrap_samples else {},
        per_class=_per_class(counts, class_names, areas),
    )


def class_auc(labels: np.ndarray, probabilities: np.ndarray) -> list[float | None]:
    """One-vs-rest area under the ROC curve of each class; None where a class has no positives or no negatives."""
    from sklearn.metrics import roc_auc_score

    areas: list[float | None] = []
    for index in range(probabilities.shape[1]):
        positive = labels == index
        defined = positive.any() and not positive.all()
        areas.append(float(roc_auc_score(positive, probabilities[:, index])) if defined else None)
    return areas


def mean_auc(areas: list[float | None], class_support: np.ndarray) -> dict[str, float]:
    """Macro and support-weighted mean of the defined class areas; nothing when none is defined."""
    defined = [(area, n) for area, n in zip(areas, class_support, strict=True) if area is not None]
    if not defined:
        return {}
    values, weights = np.asarray(defined, dtype=float).T
    return {"auc_macro": float(values.mean()), "auc_weighted": float(np.average(values, weights=weights))}


def bootstrap_intervals(counts: np.ndarray, samples: int, seed: int) -> dict[str, tuple[float, float]]:
    """95 % percentile intervals of the count scores.

    Resampling images with replacement is a multinomial draw over the cells of the confusion matrix, so all
    resamples are one array `(samples, K, K)`.
    """
    total = int(counts.sum())
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(total, counts.reshape(-1) / total, size=samples).reshape(samples, *counts.shape)
    resampled = confusion.scores(draws)
    return {
        name: (float(np.percentile(values, 2.5)), float(np.percentile(values, 97.5)))
        for name, values in resampled.items()
    }


def _per_class(
    counts: np.ndarray, class_names: tuple[str, ...], areas: list[float | None]
) -> dict[str, dict[str, float | None]]:
    columns = {
        "support": confusion.support(counts),
        "recall": confusion.recall(counts),
        "specificity": confusion.specificity(counts),
        "precision": confusion.precision(counts),
        "f1": confusion.f1(counts),
    }
    return {
        name: {**{column: float(values[i]) for column, values in columns.items()}, "auc": areas[i]}
        for i, name in enumerate(class_names)
    }

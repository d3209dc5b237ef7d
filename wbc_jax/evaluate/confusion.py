"""Scores that follow from the confusion matrix alone. [pure]

Every function takes counts `(…, K, K)`, rows the true class, columns the predicted one, and works over leading axes
at once; that is what makes a bootstrap of thousands of resamples cheap. Counts come first, division last. A class
without support has recall 0 and is left out of the class means; a class never predicted has precision 0.
"""

from __future__ import annotations

import numpy as np

Counts = np.ndarray


def confusion_counts(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> Counts:
    """Counts `(K, K)` of int labels and predictions `(N,)`."""
    flat = np.bincount(labels * num_classes + predicted, minlength=num_classes * num_classes)
    return flat.reshape(num_classes, num_classes)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros(np.broadcast(part, whole).shape), where=whole > 0)


def support(counts: Counts) -> np.ndarray:
    """Samples of each true class, `(…, K)`."""
    return counts.sum(axis=-1)


def recall(counts: Counts) -> np.ndarray:
    """Share of each true class found, `(…, K)`; the papers' per-class "accuracy"."""
    return _ratio(np.diagonal(counts, axis1=-2, axis2=-1), support(counts))


def precision(counts: Counts) -> np.ndarray:
    """Share of each predicted class that is right, `(…, K)`."""
    return _ratio(np.diagonal(counts, axis1=-2, axis2=-1), counts.sum(axis=-2))


def f1(counts: Counts) -> np.ndarray:
    """Harmonic mean of precision and recall of each class, `(…, K)`."""
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    return _ratio(2 * hits, support(counts) + counts.sum(axis=-2))


def specificity(counts: Counts) -> np.ndarray:
    """Share of the other classes' samples not called this class, TN / (TN + FP), `(…, K)`."""
    total = counts.sum(axis=(-2, -1))[..., None]
    negatives = total - support(counts)
    false_positives = counts.sum(axis=-2) - np.diagonal(counts, axis1=-2, axis2=-1)
    return _ratio(negatives - false_positives, negatives)


def macro(per_class: np.ndarray, counts: Counts) -> np.ndarray:
    """Mean over the classes that have samples, `(…,)`."""
    present = support(counts) > 0
    return _ratio((per_class * present).sum(axis=-1), present.sum(axis=-1))


def weighted(per_class: np.ndarray, counts: Counts) -> np.ndarray:
    """Mean over classes weighted by their samples, `(…,)`."""
    weights = support(counts)
    return _ratio((per_class * weights).sum(axis=-1), weights.sum(axis=-1))


def accuracy(counts: Counts) -> np.ndarray:
    """Overall accuracy (OA), `(…,)`."""
    return _ratio(np.trace(counts, axis1=-2, axis2=-1), counts.sum(axis=(-2, -1)))


def matthews(counts: Counts) -> np.ndarray:
    """Multi-class Matthews correlation (Gorodkin 2004), `(…,)`; 0 when a margin is constant."""
    true, predicted = support(counts).astype(float), counts.sum(axis=-2).astype(float)
    total = counts.sum(axis=(-2, -1)).astype(float)
    covariance = np.trace(counts, axis1=-2, axis2=-1) * total - (true * predicted).sum(axis=-1)
    spread = (total**2 - (predicted**2).sum(axis=-1)) * (total**2 - (true**2).sum(axis=-1))
    return _ratio(covariance, np.sqrt(np.maximum(spread, 0.0)))


def scores(counts: Counts) -> dict[str, np.ndarray]:
    """The overall scores that the three papers print, each `(…,)`.

    `average_precision_rate` and `average_recall` are SCAM's AP and AR, `af1_harmonic` its printed formula
    2·AP·AR/(AP+AR), `macro_f1` the mean of class F1 that its quoted figures fit better. `hard_auc_weighted` is
    (recall + specificity)/2 weighted over classes, the form behind DAFFNet's AUC column.
    """
    found, right, harmonic, spared = recall(counts), precision(counts), f1(counts), specificity(counts)
    ap, ar = macro(right, counts), macro(found, counts)
    return {
        "accuracy": accuracy(counts),
        "balanced_accuracy": ar,
        "average_precision_rate": ap,
        "average_recall": ar,
        "af1_harmonic": _ratio(2 * ap * ar, ap + ar),
        "macro_f1": macro(harmonic, counts),
        "macro_specificity": macro(spared, counts),
        "weighted_precision": weighted(right, counts),
        "weighted_recall": weighted(found, counts),
        "weighted_f1": weighted(harmonic, counts),
        "hard_auc_weighted": weighted((found + spared) / 2, counts),
        "mcc": matthews(counts),
    }

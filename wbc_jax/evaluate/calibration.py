"""How far confidence can be trusted. [pure]"""

from __future__ import annotations

import numpy as np


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Mean gap between confidence and accuracy over equal-width confidence bins (Guo et al. 2017), share.

    Args:
        probabilities: `(N, K)`.
        labels: int `(N,)`.
        bins: number of bins over [0, 1]; the upper edge belongs to a bin.
    """
    _, accuracy, confidence, count = reliability_bins(probabilities, labels, bins)
    total = count.sum()
    return float((np.abs(accuracy - confidence) * count).sum() / total) if total else 0.0


def reliability_bins(
    probabilities: np.ndarray, labels: np.ndarray, bins: int = 15
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Upper edge, accuracy, mean confidence and count of each confidence bin, each `(bins,)`; empty bins are 0."""
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    edges = np.linspace(0.0, 1.0, bins + 1)[1:]
    index = np.minimum(np.searchsorted(edges, confidence, side="left"), bins - 1)
    count = np.bincount(index, minlength=bins).astype(float)
    safe = np.maximum(count, 1.0)
    accuracy = np.bincount(index, weights=correct.astype(float), minlength=bins) / safe
    mean_confidence = np.bincount(index, weights=confidence.astype(float), minlength=bins) / safe
    return edges, accuracy, mean_confidence, count


def negative_log_likelihood(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean -log p of the true class, nats."""
    chosen = probabilities[np.arange(len(labels)), labels].astype(float)
    return float(-np.log(np.maximum(chosen, 1e-12)).mean()) if len(labels) else 0.0

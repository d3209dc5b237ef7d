"""Weights against uneven classes: for drawing samples, or for the loss."""

from __future__ import annotations

import numpy as np


def sampling_weights(labels: np.ndarray) -> np.ndarray:
    """Probability of each sample, float64 `(N,)`, such that every class that occurs is drawn equally often.

    Args:
        labels: int `(N,)`, not negative.
    """
    labels = _checked(labels)
    counts = np.bincount(labels)
    return 1.0 / (np.count_nonzero(counts) * counts[labels].astype(np.float64))


def class_weights(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Weight of each class in the loss, float32 `(num_classes,)`: inverse to its size, 1 on average over the samples.

    A class without samples gets 0.

    Args:
        labels: int `(N,)`, in `range(num_classes)`.
        num_classes: length of the result.
    """
    counts = np.bincount(_checked(labels), minlength=num_classes)
    if len(counts) > num_classes:
        raise ValueError(f"label {len(counts) - 1} is outside of {num_classes} classes")
    weights = np.zeros(num_classes, np.float64)
    present = counts > 0
    weights[present] = counts.sum() / (present.sum() * counts[present])
    return weights.astype(np.float32)


def _checked(labels: np.ndarray) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.ndim != 1 or not len(labels) or labels.min() < 0:
        raise ValueError(f"labels of at least one sample, none negative, expected, got {labels!r}")
    return labels.astype(np.int64)

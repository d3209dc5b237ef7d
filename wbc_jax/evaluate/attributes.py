"""Scores of the eleven morphological attributes, and what they are worth: two baselines. [pure]

As in `confusion`, counts come first and division last. An attribute that an image does not annotate (-1) counts for
nothing. DAFFNet's columns (Tables 5 and 6) describe an attribute of two values by its positive one, and one of more
values by means weighted with the number of images; the F1 of WBCAtt is the plain mean over values.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wbc_jax.catalog import ABSENT, ATTRIBUTES, Attribute
from wbc_jax.evaluate import confusion
from wbc_jax.models.attribute_groups import GROUP_SLICES

POSITIVE_VALUES: dict[str, str] = {
    "cell_size": "small",
    "cell_shape": "irregular",
    "nuclear_cytoplasmic_ratio": "high",
    "chromatin_density": "loosely",
    "cytoplasm_vacuole": "yes",
    "cytoplasm_texture": "frosted",
    "granularity": "no",
}
"""The value that precision, recall and F1 of a two-valued attribute are about: the rarer one in WBCAtt's training
rows. Fixed here, so that the scores of two runs mean the same."""

SCORES = ("accuracy", "precision", "recall", "specificity", "f1", "macro_f1", "hard_auc")
"""Scores of one attribute that follow from its counts."""


def predicted_values(probabilities: np.ndarray) -> np.ndarray:
    """Most probable value of each attribute, int32 `(n, 11)`, of group probabilities `(n, 31)`."""
    columns = [probabilities[:, part].argmax(axis=1) for part in GROUP_SLICES]
    return np.stack(columns, axis=1).astype(np.int32)


def value_counts(truth: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, ...]:
    """Confusion matrix `(V, V)` of each attribute, rows the true value.

    Args:
        truth: int `(n, 11)`, -1 where not annotated.
        predicted: int `(n, 11)`.
    """
    counts = []
    for column, attribute in enumerate(ATTRIBUTES):
        known = truth[:, column] != ABSENT
        values = len(attribute.values)
        counts.append(confusion.confusion_counts(truth[known, column], predicted[known, column], values))
    return tuple(counts)


def resampled_counts(truth: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, ...]:
    """As `value_counts`, each image counted as often as a resample drew it.

    Args:
        truth, predicted: int `(n, 11)`.
        weights: `(r, n)`, how often each of r resamples drew each image.

    Returns:
        `(r, V, V)` for each attribute.
    """
    counts = []
    for column, attribute in enumerate(ATTRIBUTES):
        known, values = truth[:, column] != ABSENT, len(attribute.values)
        cell = truth[known, column] * values + predicted[known, column]
        one_hot = (cell[:, None] == np.arange(values**2)).astype(float)  # (n, V * V)
        drawn = weights[:, known] @ one_hot  # (r, V * V)
        counts.append(drawn.reshape(-1, values, values))
    return tuple(counts)


def attribute_scores(attribute: Attribute, counts: np.ndarray) -> dict[str, np.ndarray]:
    """`SCORES` of one attribute, each `(…,)`, from counts `(…, V, V)`.

    `hard_auc` is (recall + specificity) / 2, the form behind DAFFNet's AUC column.
    """
    by_value = {
        "precision": confusion.precision(counts),
        "recall": confusion.recall(counts),
        "specificity": confusion.specificity(counts),
        "f1": confusion.f1(counts),
    }
    by_value["hard_auc"] = (by_value["recall"] + by_value["specificity"]) / 2
    positive = POSITIVE_VALUES.get(attribute.name)
    if positive is None:
        summary = {name: confusion.weighted(values, counts) for name, values in by_value.items()}
    else:
        summary = {name: values[..., attribute.encode(positive)] for name, values in by_value.items()}
    summary["accuracy"] = confusion.accuracy(counts)
    summary["macro_f1"] = confusion.macro(by_value["f1"], counts)
    return summary


def mean_scores(counts: tuple[np.ndarray, ...]) -> dict[str, np.ndarray]:
    """Mean of each score over the attributes that are annotated at all, each `(…,)`, as `attribute_<score>`."""
    rows = [
        attribute_scores(attribute, c)
        for attribute, c in zip(ATTRIBUTES, counts, strict=True)
        if np.any(c > 0)
    ]
    return {f"attribute_{name}": np.mean([row[name] for row in rows], axis=0) for name in SCORES}


def sample_scores(
    truth: np.ndarray, predicted: np.ndarray, weights: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Scores that look at all attributes of an image together, each `(…,)`.

    `subset_accuracy` (SAcc): share of images with every annotated attribute right. `hamming_loss` (HL): share of
    wrong attribute labels. `jaccard` (JS): mean over images of |true and predicted| / |true or predicted|, which is
    h / (2m - h) with h of m annotated attributes right, h / (22 - h) for all eleven.

    Args:
        truth: int `(n, 11)`, -1 where not annotated; each image annotates at least one.
        predicted: int `(n, 11)`.
        weights: `(…, n)`, how often each image counts; None: once.
    """
    annotated = (truth != ABSENT).sum(axis=1)
    hits = ((truth == predicted) & (truth != ABSENT)).sum(axis=1)
    weights = np.ones(len(truth)) if weights is None else weights
    images = weights.sum(axis=-1)
    return {
        "subset_accuracy": weights @ (hits == annotated) / images,
        "hamming_loss": weights @ (annotated - hits) / (weights @ annotated),
        "jaccard": weights @ (hits / (2 * annotated - hits)) / images,
    }


@dataclass(frozen=True, kw_only=True)
class Baselines:
    """What can be said about an image without looking at its attributes.

    Attributes:
        majority: int32 `(11,)`, the most frequent value of each attribute in training.
        by_class: int32 `(K, 11)`, the most frequent value among the training images of each cell class.
    """

    majority: np.ndarray
    by_class: np.ndarray

    def predict(self, labels: np.ndarray) -> dict[str, np.ndarray]:
        """Values `(n, 11)` by name of the baseline, for images of the true classes `labels` `(n,)`."""
        return {
            "majority": np.broadcast_to(self.majority, (len(labels), len(ATTRIBUTES))),
            "class_only": self.by_class[labels],
        }


def fit_baselines(labels: np.ndarray, attributes: np.ndarray, num_classes: int) -> Baselines | None:
    """Counts values in training rows; None unless every attribute is annotated somewhere.

    A class without annotated images gets the majority value.

    Args:
        labels: int `(n,)`, classes.
        attributes: int `(n, 11)`, -1 where not annotated.
        num_classes: K.
    """
    if not (attributes != ABSENT).any(axis=0).all():
        return None
    majority, by_class = [], []
    for column, attribute in enumerate(ATTRIBUTES):
        known = attributes[:, column] != ABSENT
        table = np.zeros((num_classes, len(attribute.values)), np.int64)
        np.add.at(table, (labels[known], attributes[known, column]), 1)
        overall = table.sum(axis=0).argmax()
        majority.append(overall)
        by_class.append(np.where(table.any(axis=1), table.argmax(axis=1), overall))  # (K,)
    return Baselines(
        majority=np.asarray(majority, np.int32), by_class=np.stack(by_class, axis=1).astype(np.int32)
    )

"""Scores against scikit-learn and by hand."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn import metrics as reference

from wbc_jax.evaluate import confusion
from wbc_jax.evaluate.calibration import expected_calibration_error, negative_log_likelihood, reliability_bins
from wbc_jax.evaluate.report import class_auc, evaluate_predictions

NAMES = ("a", "b", "c", "d")


def _case(seed: int, missing: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.choice(4, size=137, p=[0.55, 0.25, 0.15, 0.05])
    if missing is not None:
        labels = np.where(labels == missing, 0, labels)
    logits = rng.normal(size=(137, 4)) + 1.5 * np.eye(4)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return labels, probabilities


@pytest.mark.parametrize("seed", range(4))
def test_count_scores_equal_scikit_learn(seed: int) -> None:
    labels, probabilities = _case(seed)
    predicted = probabilities.argmax(axis=1)
    counts = confusion.confusion_counts(labels, predicted, 4)
    scores = confusion.scores(counts)
    np.testing.assert_array_equal(counts, reference.confusion_matrix(labels, predicted, labels=range(4)))
    expected = {
        "accuracy": reference.accuracy_score(labels, predicted),
        "balanced_accuracy": reference.balanced_accuracy_score(labels, predicted),
        "average_precision_rate": reference.precision_score(
            labels, predicted, average="macro", zero_division=0
        ),
        "average_recall": reference.recall_score(labels, predicted, average="macro"),
        "macro_f1": reference.f1_score(labels, predicted, average="macro"),
        "weighted_precision": reference.precision_score(
            labels, predicted, average="weighted", zero_division=0
        ),
        "weighted_recall": reference.recall_score(labels, predicted, average="weighted"),
        "weighted_f1": reference.f1_score(labels, predicted, average="weighted"),
        "mcc": reference.matthews_corrcoef(labels, predicted),
    }
    for name, value in expected.items():
        assert scores[name] == pytest.approx(value, abs=1e-12), name
    for index in range(4):  # specificity is the recall of "not this class"
        value = reference.recall_score(labels != index, predicted != index)
        assert confusion.specificity(counts)[index] == pytest.approx(value, abs=1e-12)


def test_printed_af1_is_the_harmonic_mean_of_ap_and_ar() -> None:
    counts = np.array([[8, 2], [1, 9]])
    ap, ar = (8 / 9 + 9 / 11) / 2, (0.8 + 0.9) / 2
    assert confusion.scores(counts)["af1_harmonic"] == pytest.approx(2 * ap * ar / (ap + ar))


def test_class_without_support_is_left_out_of_means_and_never_nan() -> None:
    labels, probabilities = _case(1, missing=3)
    evaluation = evaluate_predictions(labels, probabilities, NAMES, bootstrap_samples=50)
    assert evaluation.per_class["d"]["support"] == 0
    assert evaluation.per_class["d"]["auc"] is None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns of predicted classes that are absent
        expected = reference.balanced_accuracy_score(labels, probabilities.argmax(axis=1))
    assert evaluation.overall["balanced_accuracy"] == pytest.approx(expected)
    assert all(np.isfinite(v) for v in evaluation.overall.values())


def test_auc_equals_scikit_learn_one_vs_rest() -> None:
    labels, probabilities = _case(2)
    overall = evaluate_predictions(labels, probabilities, NAMES, bootstrap_samples=0).overall
    for average in ("macro", "weighted"):
        expected = reference.roc_auc_score(labels, probabilities, multi_class="ovr", average=average)
        assert overall[f"auc_{average}"] == pytest.approx(expected, abs=1e-12)


def test_auc_of_one_class_only_is_undefined() -> None:
    assert class_auc(np.zeros(5, int), np.full((5, 2), 0.5)) == [None, None]


def test_hard_label_auc_is_the_published_form() -> None:
    labels, probabilities = _case(3)
    predicted = probabilities.argmax(axis=1)
    per_class = [reference.roc_auc_score(labels == k, predicted == k) for k in range(4)]
    expected = np.average(per_class, weights=np.bincount(labels, minlength=4))
    scores = confusion.scores(confusion.confusion_counts(labels, predicted, 4))
    assert scores["hard_auc_weighted"] == pytest.approx(expected, abs=1e-12)


def test_calibration_error_by_hand() -> None:
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.3, 0.7]])
    labels = np.array([0, 1, 0, 1])
    # bins of width 0.1: {0.9, 0.9} accuracy 0.5, {0.6} accuracy 1, {0.7} accuracy 1
    expected = (2 * abs(0.5 - 0.9) + abs(1 - 0.6) + abs(1 - 0.7)) / 4
    assert expected_calibration_error(probabilities, labels, bins=10) == pytest.approx(expected)
    assert reliability_bins(probabilities, labels, bins=10)[3].sum() == 4


def test_log_likelihood_equals_scikit_learn() -> None:
    labels, probabilities = _case(0)
    expected = reference.log_loss(labels, probabilities, labels=range(4))
    assert negative_log_likelihood(probabilities, labels) == pytest.approx(expected)


def test_bootstrap_interval_agrees_with_resampling_images() -> None:
    labels, probabilities = _case(0)
    predicted = probabilities.argmax(axis=1)
    low, high = evaluate_predictions(labels, probabilities, NAMES, bootstrap_samples=4000).intervals[
        "accuracy"
    ]
    rng = np.random.default_rng(7)
    rows = rng.integers(0, len(labels), size=(4000, len(labels)))
    direct = np.percentile((labels == predicted)[rows].mean(axis=1), [2.5, 97.5])
    np.testing.assert_allclose([low, high], direct, atol=0.012)
    assert low < (labels == predicted).mean() < high

"""Attribute scores against scikit-learn and by hand; baselines; real annotations."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as reference

from wbc_jax.catalog import ABSENT, ATTRIBUTES
from wbc_jax.evaluate import attributes as scoring
from wbc_jax.evaluate.attribute_report import evaluate_attributes

SIZES = [len(attribute.values) for attribute in ATTRIBUTES]
IMAGES = 211


def case(seed: int = 0, absent_share: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth `(n, 11)`, group probabilities `(n, 31)`, classes `(n,)` that say something about the truth."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, IMAGES)
    columns = [(labels * 2 + (rng.random(IMAGES) < 0.4) + i) % size for i, size in enumerate(SIZES)]
    truth = np.stack(columns, axis=1).astype(np.int32)
    groups = []
    for column, size in enumerate(SIZES):
        logits = rng.normal(size=(IMAGES, size)) + 1.5 * np.eye(size)[truth[:, column]]
        groups.append(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))
    truth[rng.random(truth.shape) < absent_share] = ABSENT
    return truth, np.concatenate(groups, axis=1), labels


@pytest.mark.parametrize("absent_share", [0.0, 0.3])
def test_each_attributes_scores_are_scikit_learns(absent_share: float) -> None:
    truth, probabilities, labels = case(1, absent_share)
    rows = evaluate_attributes(truth, probabilities, labels, bootstrap_samples=0).per_attribute
    start = 0
    for column, (attribute, size) in enumerate(zip(ATTRIBUTES, SIZES, strict=True)):
        known = truth[:, column] >= 0
        true, scores = truth[known, column], probabilities[known, start : start + size]
        start += size
        predicted = scores.argmax(axis=1)
        row = rows[attribute.name]
        assert row["support"] == known.sum()
        assert row["accuracy"] == pytest.approx(reference.accuracy_score(true, predicted))
        assert row["macro_f1"] == pytest.approx(reference.f1_score(true, predicted, average="macro"))
        if size == 2:
            positive = attribute.values.index(scoring.POSITIVE_VALUES[attribute.name])
            options: Any = {"average": "binary", "pos_label": positive}
            specificity = reference.recall_score(true, predicted, pos_label=1 - positive)
            hard_auc = reference.balanced_accuracy_score(true, predicted)
            auc = reference.roc_auc_score(true == positive, scores[:, positive])
        else:
            options = {"average": "weighted"}
            each = [reference.recall_score(true != v, predicted != v) for v in range(size)]
            areas = [reference.roc_auc_score(true == v, predicted == v) for v in range(size)]
            weights = np.bincount(true, minlength=size)
            specificity, hard_auc = np.average(each, weights=weights), np.average(areas, weights=weights)
            auc = reference.roc_auc_score(true, scores, multi_class="ovr", average="weighted")
        assert row["precision"] == pytest.approx(reference.precision_score(true, predicted, **options))
        assert row["recall"] == pytest.approx(reference.recall_score(true, predicted, **options))
        assert row["f1"] == pytest.approx(reference.f1_score(true, predicted, **options))
        assert row["specificity"] == pytest.approx(specificity)
        assert row["hard_auc"] == pytest.approx(hard_auc)
        assert row["auc"] == pytest.approx(auc)


def test_overall_scores_are_means_over_attributes() -> None:
    truth, probabilities, labels = case(2)
    evaluation = evaluate_attributes(truth, probabilities, labels, bootstrap_samples=0)
    for name in (*scoring.SCORES, "auc"):
        mean = np.mean([row[name] or 0.0 for row in evaluation.per_attribute.values()])
        assert evaluation.overall[f"attribute_{name}"] == pytest.approx(mean)


def test_confusion_matrices_leave_out_what_is_not_annotated() -> None:
    truth, probabilities, labels = case(3, absent_share=0.4)
    evaluation = evaluate_attributes(truth, probabilities, labels, bootstrap_samples=0)
    for column, counts in enumerate(evaluation.counts):
        known = evaluation.truth[:, column] >= 0
        expected = reference.confusion_matrix(
            evaluation.truth[known, column],
            evaluation.predicted[known, column],
            labels=range(SIZES[column]),
        )
        np.testing.assert_array_equal(counts, expected)


def test_sample_scores_are_scikit_learns_multilabel_scores() -> None:
    truth, probabilities, _ = case(4)
    predicted = scoring.predicted_values(probabilities)
    offsets = np.cumsum([0, *SIZES[:-1]])
    true_sets, predicted_sets = np.zeros((2, IMAGES, 31), int)
    np.put_along_axis(true_sets, truth + offsets, 1, axis=1)
    np.put_along_axis(predicted_sets, predicted + offsets, 1, axis=1)
    scores = scoring.sample_scores(truth, predicted)
    assert scores["subset_accuracy"] == pytest.approx(reference.accuracy_score(true_sets, predicted_sets))
    expected = reference.jaccard_score(true_sets, predicted_sets, average="samples")
    assert scores["jaccard"] == pytest.approx(expected)
    assert scores["hamming_loss"] == pytest.approx((truth != predicted).mean())
    hits = (truth == predicted).sum(axis=1)
    assert scores["jaccard"] == pytest.approx((hits / (22 - hits)).mean())


def test_sample_scores_by_hand_with_missing_annotations() -> None:
    truth = np.zeros((3, 11), np.int32)
    truth[1, 4:] = ABSENT  # 4 annotated
    truth[2, 1:] = ABSENT  # 1 annotated
    predicted = np.zeros((3, 11), np.int32)
    predicted[0, :2] = 1  # 9 of 11 right
    predicted[1, 5:] = 1  # 4 of 4 right, the rest does not count
    predicted[2, 0] = 1  # 0 of 1 right
    scores = scoring.sample_scores(truth, predicted)
    assert scores["subset_accuracy"] == pytest.approx(1 / 3)
    assert scores["hamming_loss"] == pytest.approx(3 / 16)
    assert scores["jaccard"] == pytest.approx((9 / 13 + 1 + 0) / 3)


def test_images_without_attributes_count_for_nothing() -> None:
    truth, probabilities, labels = case(5)
    some = truth.copy()
    some[::2] = ABSENT
    expected = evaluate_attributes(truth[1::2], probabilities[1::2], labels[1::2], bootstrap_samples=30)
    found = evaluate_attributes(some, probabilities, labels, bootstrap_samples=30)
    assert found.to_json() == expected.to_json()


def test_an_attribute_nobody_annotates_is_left_out() -> None:
    truth, probabilities, labels = case(6)
    truth[:, 2] = ABSENT
    evaluation = evaluate_attributes(truth, probabilities, labels, bootstrap_samples=20)
    assert "nucleus_shape" not in evaluation.per_attribute
    accuracies = [row["accuracy"] or 0.0 for row in evaluation.per_attribute.values()]
    assert len(accuracies) == 10
    assert evaluation.overall["attribute_accuracy"] == pytest.approx(np.mean(accuracies))
    assert np.isfinite(list(evaluation.overall.values())).all()


def test_a_value_that_never_occurs_gives_no_area_and_no_nan() -> None:
    truth, probabilities, labels = case(7)
    truth[:, 0] = 0
    evaluation = evaluate_attributes(truth, probabilities, labels, bootstrap_samples=20)
    assert evaluation.per_attribute["cell_size"]["auc"] is None
    assert np.isfinite(list(evaluation.overall.values())).all()


def test_intervals_agree_with_resampling_images_one_by_one() -> None:
    truth, probabilities, labels = case(8)
    intervals = evaluate_attributes(truth, probabilities, labels, bootstrap_samples=3000).intervals
    predicted = scoring.predicted_values(probabilities)
    rows = np.random.default_rng(9).integers(0, IMAGES, size=(1500, IMAGES))
    direct = {"attribute_accuracy": [], "subset_accuracy": [], "jaccard": [], "attribute_macro_f1": []}
    for chosen in rows:
        overall = scoring.mean_scores(scoring.value_counts(truth[chosen], predicted[chosen]))
        overall |= scoring.sample_scores(truth[chosen], predicted[chosen])
        for name, values in direct.items():
            values.append(float(overall[name]))
    for name, values in direct.items():
        np.testing.assert_allclose(intervals[name], np.percentile(values, [2.5, 97.5]), atol=0.008)


def test_baselines_know_the_most_frequent_values() -> None:
    labels = np.array([0, 0, 0, 1, 1, 2])
    attributes = np.zeros((6, 11), np.int32)
    attributes[:, 2] = [5, 5, 1, 3, 3, 3]
    attributes[:, 7] = [2, 2, 2, 1, ABSENT, ABSENT]
    baselines = scoring.fit_baselines(labels, attributes, 4)
    assert baselines is not None
    assert baselines.majority[2] == 3
    assert baselines.by_class[:, 2].tolist() == [5, 3, 3, 3]
    assert baselines.by_class[:, 7].tolist() == [2, 1, 2, 2], "no annotation: the majority"
    predicted = baselines.predict(np.array([0, 1]))
    assert predicted["class_only"][:, 2].tolist() == [5, 3]
    assert predicted["majority"][:, 2].tolist() == [3, 3]
    attributes[:, 0] = ABSENT
    assert scoring.fit_baselines(labels, attributes, 4) is None


def annotated_rows(data_dir: Path, part: str) -> tuple[list[str], list[dict[str, str]]]:
    with (data_dir / "wbcatt" / f"pbc_attr_v1_{part}.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [row["label"] for row in rows], rows


def encoded(rows: list[dict[str, str]]) -> np.ndarray:
    return np.array([[a.encode(row[a.name].strip().lower()) for a in ATTRIBUTES] for row in rows], np.int32)


def test_baselines_of_the_real_annotations(data_dir: Path) -> None:
    """Counted once more with nothing but dictionaries."""
    train_classes, train_rows = annotated_rows(data_dir, "train")
    test_classes, test_rows = annotated_rows(data_dir, "test")
    names = sorted(set(train_classes))
    labels = [np.array([names.index(c) for c in classes]) for classes in (train_classes, test_classes)]
    baselines = scoring.fit_baselines(labels[0], encoded(train_rows), len(names))
    truth = encoded(test_rows)
    probabilities = np.concatenate(
        [np.eye(size)[truth[:, column]] for column, size in enumerate(SIZES)], axis=1
    )
    evaluation = evaluate_attributes(truth, probabilities, labels[1], baselines, bootstrap_samples=0)
    assert evaluation.overall["attribute_accuracy"] == 1.0
    hits = {"majority": [], "class_only": []}
    for attribute in ATTRIBUTES:
        pairs = Counter((c, r[attribute.name]) for c, r in zip(train_classes, train_rows, strict=True))
        values = sorted({value for _, value in pairs})  # a tie goes to the first
        best = {c: max(values, key=lambda v, c=c: pairs[c, v]) for c in names}
        most = Counter(row[attribute.name] for row in train_rows).most_common(1)[0][0]
        for c, row in zip(test_classes, test_rows, strict=True):
            hits["class_only"].append(row[attribute.name] == best[c])
            hits["majority"].append(row[attribute.name] == most)
    for name, values in hits.items():
        assert evaluation.baselines[name]["attribute_accuracy"] == pytest.approx(np.mean(values))
    assert evaluation.baselines["class_only"]["subset_accuracy"] == pytest.approx(
        np.reshape(hits["class_only"], (11, -1)).all(axis=0).mean()
    )
    assert evaluation.baselines["class_only"]["attribute_accuracy"] > 0.85


def test_positive_values_are_the_rarer_ones_in_training(data_dir: Path) -> None:
    _, rows = annotated_rows(data_dir, "train")
    two_valued = {attribute.name for attribute in ATTRIBUTES if len(attribute.values) == 2}
    assert set(scoring.POSITIVE_VALUES) == two_valued
    for name, value in scoring.POSITIVE_VALUES.items():
        assert sum(row[name].strip().lower() == value for row in rows) < len(rows) / 2

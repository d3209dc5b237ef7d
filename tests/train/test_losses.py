"""Losses against torch, scikit-learn and the definition."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss

from wbc_jax.train.losses import cross_entropy, expected_correct, sample_weights, soft_labels

B, K = 7, 4
WEIGHTS = (0.5, 1.0, 2.0, 3.5)


@pytest.fixture
def logits() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(B, K)).astype(np.float32) * 3


@pytest.fixture
def labels() -> np.ndarray:
    return np.array([0, 1, 2, 3, 3, 0, 2], np.int32)


def _mean(logits, targets, mask, weights=None, smoothing=0.0):
    losses = cross_entropy(logits, targets, class_weights=weights, label_smoothing=smoothing)
    return float(jnp.sum(losses * mask) / jnp.sum(sample_weights(targets, mask, weights)))


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_equals_torch_with_weights_and_smoothing(logits, labels, weights, smoothing):
    expected = torch.nn.functional.cross_entropy(
        torch.tensor(logits),
        torch.tensor(labels, dtype=torch.long),
        weight=None if weights is None else torch.tensor(weights),
        label_smoothing=smoothing,
    )
    ours = _mean(jnp.asarray(logits), soft_labels(jnp.asarray(labels), K), jnp.ones(B), weights, smoothing)
    assert ours == pytest.approx(float(expected), rel=1e-6)


def test_class_weights_equal_sklearn_sample_weights_over_the_unmasked(logits, labels):
    mask = np.array([1, 1, 0, 1, 1, 0, 1], np.float32)
    probabilities = np.exp(logits.astype(np.float64))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    expected = log_loss(
        labels, probabilities, labels=range(K), sample_weight=np.array(WEIGHTS)[labels] * mask
    )
    ours = _mean(jnp.asarray(logits), soft_labels(jnp.asarray(labels), K), jnp.asarray(mask), WEIGHTS)
    assert ours == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_mixed_labels_give_the_mixed_loss(logits, labels, weights):
    lam = 0.3
    a, b = soft_labels(jnp.asarray(labels), K), soft_labels(jnp.asarray(labels[::-1].copy()), K)
    mixed = cross_entropy(jnp.asarray(logits), a * lam + b * (1 - lam), class_weights=weights)
    apart = [cross_entropy(jnp.asarray(logits), t, class_weights=weights) for t in (a, b)]
    np.testing.assert_allclose(mixed, apart[0] * lam + apart[1] * (1 - lam), rtol=1e-6)


def test_stays_finite_and_float32_for_huge_bfloat16_logits():
    logits = jnp.asarray([[1e4, -1e4, 0.0]], jnp.bfloat16)
    targets = soft_labels(jnp.asarray([1]), 3)
    loss, gradient = jax.value_and_grad(lambda x: jnp.sum(cross_entropy(x, targets)))(logits)
    assert loss.dtype == jnp.float32
    assert float(loss) == pytest.approx(2e4, rel=1e-2)
    assert np.isfinite(np.asarray(gradient, np.float32)).all()


def test_expected_correct_is_the_mixed_accuracy(logits, labels):
    predicted = logits.argmax(axis=1)
    other = labels[::-1].copy()
    lam = 0.7
    targets = soft_labels(jnp.asarray(labels), K) * lam + soft_labels(jnp.asarray(other), K) * (1 - lam)
    expected = lam * (predicted == labels) + (1 - lam) * (predicted == other)
    np.testing.assert_allclose(expected_correct(jnp.asarray(logits), targets), expected, rtol=1e-6)


def test_wrong_number_of_class_weights_is_refused(logits, labels):
    with pytest.raises(ValueError, match="3 class weights for 4 classes"):
        cross_entropy(jnp.asarray(logits), soft_labels(jnp.asarray(labels), K), class_weights=(1.0, 1.0, 1.0))

"""Sweeps of linear heads: separable classes are told, each point is trained by itself, scikit-learn agrees."""

from __future__ import annotations

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, log_loss

from wbc_jax.train.probe import Features, Head, score_heads, train_heads

CLASSES, INPUTS = 3, 6
RATES = jnp.asarray([0.1, 0.1, 1e-6], jnp.float32)
DECAYS = jnp.asarray([0.0, 0.3, 0.0], jnp.float32)


def cloud(count: int, seed: int, *, views: int = 1) -> Features:
    """Overlapping clouds, of unequal size, far from 0 and of unequal spread; the last feature is constant."""
    random = np.random.default_rng(seed)
    labels = random.choice(CLASSES, count, p=[0.6, 0.3, 0.1]).astype(np.int32)
    centres = np.random.default_rng(9).normal(0, 1.2, (CLASSES, INPUTS))
    values = centres[labels][:, None] + random.normal(0, 1, (count, views, INPUTS))
    values = values * np.array([1, 10, 0.1, 1, 5, 0]) + 50.0
    return Features(jnp.asarray(values, jnp.float32), jnp.asarray(labels))


@cache
def heads() -> Head:
    train = jax.jit(train_heads, static_argnames=("num_classes", "epochs", "batch_size"))
    seeds = jnp.arange(2, dtype=jnp.int32)
    return train(cloud(400, 0), RATES, DECAYS, seeds, num_classes=CLASSES, epochs=60, batch_size=64)


def test_every_point_of_the_grid_is_a_head_of_its_own() -> None:
    found = heads()
    assert found.kernel.shape == (2, 3, INPUTS, CLASSES)
    assert found.bias.shape == (2, 3, CLASSES)
    scores = score_heads(found, cloud(300, 1))
    assert scores.accuracy.shape == (2, 3)
    assert np.all(scores.loss[:, 0] < scores.loss[:, 2])  # a rate of next to nothing learns next to nothing
    norms = np.linalg.norm(np.asarray(found.kernel * 1.0), axis=(-2, -1))
    assert np.all(norms[:, 1] < norms[:, 0])  # decay shrinks
    assert not np.array_equal(found.kernel[0, 0], found.kernel[1, 0])  # seeds differ


def test_the_best_head_is_as_good_as_scikit_learns() -> None:
    train, test = cloud(400, 0), cloud(300, 1)
    x = np.asarray(train.values[:, 0], np.float64)
    mean, spread = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-6)
    reference = LogisticRegression(max_iter=2000).fit((x - mean) / spread, np.asarray(train.labels))
    theirs = reference.predict_proba((np.asarray(test.values[:, 0]) - mean) / spread)
    ours = score_heads(Head(heads().kernel[0, 0], heads().bias[0, 0]), test)
    assert float(ours.loss) < log_loss(test.labels, theirs) + 0.02
    assert float(ours.accuracy) > (theirs.argmax(axis=1) == np.asarray(test.labels)).mean() - 0.02


def test_scores_are_scikit_learns() -> None:
    test = cloud(200, 2)
    head = Head(heads().kernel[1, 1], heads().bias[1, 1])
    logits = np.asarray(test.values[:, 0], np.float64) @ np.asarray(head.kernel) + np.asarray(head.bias)
    probabilities = np.exp(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))
    scores = score_heads(head, test)
    np.testing.assert_allclose(scores.loss, log_loss(test.labels, probabilities), rtol=1e-4)
    expected = balanced_accuracy_score(test.labels, logits.argmax(axis=1))
    np.testing.assert_allclose(scores.balanced_accuracy, expected, rtol=1e-6)


def test_all_views_are_learnt_from() -> None:
    """The first view is of another image, the second of this one: a head that saw the first alone would guess."""
    plain = cloud(128, 3)
    both = Features(jnp.concatenate([plain.values[::-1], plain.values], axis=1), plain.labels)
    head = train_heads(
        both,
        jnp.asarray([0.1], jnp.float32),
        jnp.zeros(1),
        jnp.zeros(1, jnp.int32),
        num_classes=CLASSES,
        epochs=30,
        batch_size=1000,  # more than there are: one step an epoch
    )
    single = Head(head.kernel[0, 0], head.bias[0, 0])
    assert float(score_heads(single, plain).accuracy) > 0.8

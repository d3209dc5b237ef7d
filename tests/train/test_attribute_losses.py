"""Attribute losses against torch and a plain loop; what is not annotated counts nowhere."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from wbc_jax.catalog import ATTRIBUTES
from wbc_jax.data.batch import Batch
from wbc_jax.errors import ConfigError
from wbc_jax.train.attribute_losses import (
    attribute_cross_entropy,
    attribute_expected_correct,
    attribute_targets,
    attribute_weights,
)
from wbc_jax.train.objective import Objective, Targets, mix

B, K = 6, 4
SIZES = [len(attribute.values) for attribute in ATTRIBUTES]
STARTS = np.cumsum([0, *SIZES])


@pytest.fixture
def logits() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 3, (B, 31)).astype(np.float32)


@pytest.fixture
def attributes() -> np.ndarray:
    """Row 0 has all, row 1 none, the others some."""
    random = np.random.default_rng(1)
    values = np.stack([random.integers(0, n, B) for n in SIZES], axis=-1).astype(np.int32)
    values[1] = -1
    values[2:][random.random((B - 2, 11)) < 0.4] = -1
    return values


def _torch_losses(logits: np.ndarray, attributes: np.ndarray, smoothing: float = 0.0) -> np.ndarray:
    columns = []
    for index, (start, size) in enumerate(zip(STARTS[:-1], SIZES, strict=True)):
        group = torch.from_numpy(logits[:, start : start + size])
        target = torch.from_numpy(attributes[:, index].astype(np.int64))
        columns.append(
            torch.nn.functional.cross_entropy(
                group, target, ignore_index=-1, reduction="none", label_smoothing=smoothing
            ).numpy()
        )
    return np.stack(columns, axis=-1)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_torchs_with_absent_labels_ignored(logits, attributes, smoothing) -> None:
    targets = attribute_targets(jnp.asarray(attributes), jnp.ones(B))
    losses = attribute_cross_entropy(jnp.asarray(logits), targets, label_smoothing=smoothing)
    np.testing.assert_allclose(losses, _torch_losses(logits, attributes, smoothing), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(attribute_weights(targets), attributes >= 0)


def test_hits_are_those_of_a_plain_loop(logits, attributes) -> None:
    hits = attribute_expected_correct(
        jnp.asarray(logits), attribute_targets(jnp.asarray(attributes), jnp.ones(B))
    )
    for row in range(B):
        for index, (start, size) in enumerate(zip(STARTS[:-1], SIZES, strict=True)):
            expected = attributes[row, index] == np.argmax(logits[row, start : start + size])
            assert bool(hits[row, index]) == expected


def _class_logits() -> np.ndarray:
    return np.random.default_rng(2).normal(size=(B, K)).astype(np.float32)


def _batch(attributes: np.ndarray, mask: np.ndarray) -> Batch:
    return Batch(
        images=np.zeros((B, 2, 2, 3), np.uint8),
        labels=np.array([0, 1, 2, 3, 1, 0], np.int32),
        attributes=attributes,
        mask=mask,
        ids=np.arange(B, dtype=np.int32),
    )


@pytest.mark.parametrize("share", [0.0, 0.8, 1.0])
def test_loss_is_eq_1_over_annotated_pairs(logits, attributes, share) -> None:
    mask = np.array([1, 1, 1, 0, 1, 1], np.float32)
    batch, class_logits = _batch(attributes, mask), _class_logits()
    objective = Objective(num_classes=K, attribute_share=share)
    loss, correct = objective.loss(
        jnp.asarray(class_logits),
        {"attribute_logits": jnp.asarray(logits)},
        objective.targets(batch),
        jnp.asarray(mask),
    )
    counted = attributes[mask > 0]
    pairs = (counted >= 0).sum()
    by_pair = _torch_losses(logits, attributes)[mask > 0].sum() / pairs
    by_class = torch.nn.functional.cross_entropy(
        torch.from_numpy(class_logits[mask > 0]), torch.from_numpy(batch.labels[mask > 0].astype(np.int64))
    ).item()
    assert float(loss) == pytest.approx(share * by_pair + (1 - share) * by_class, rel=1e-5)
    assert float(correct.get("attribute_count", 0)) == (pairs if share else 0)


def test_weights_of_samples_are_weights_in_the_mean_over_pairs(logits, attributes) -> None:
    """A pseudo-label of weight w counts w times, in the sum and in what it is divided by."""
    mask = np.array([1, 1, 1, 0, 1, 1], np.float32)
    weights = np.array([1, 0.5, 0, 1, 0.25, 1], np.float32)
    batch = _batch(attributes, mask).replace(attribute_weights=weights)
    objective = Objective(num_classes=K, attribute_share=1.0)
    loss, _ = objective.loss(
        jnp.asarray(_class_logits()),
        {"attribute_logits": jnp.asarray(logits)},
        objective.targets(batch),
        jnp.asarray(mask),
    )
    factors = (mask * weights)[:, None]
    expected = (factors * _torch_losses(logits, attributes)).sum() / (factors * (attributes >= 0)).sum()
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_absent_labels_and_padding_have_no_gradient(logits, attributes) -> None:
    mask = jnp.asarray(np.array([1, 1, 1, 0, 1, 1], np.float32))
    objective = Objective(num_classes=K, attribute_share=0.8)
    targets = objective.targets(_batch(attributes, np.asarray(mask)))
    class_logits = jnp.asarray(_class_logits())

    def loss(values):
        return objective.loss(class_logits, {"attribute_logits": values}, targets, mask)[0]

    gradient = np.asarray(jax.grad(loss)(jnp.asarray(logits)))
    for row in range(B):
        for index, (start, size) in enumerate(zip(STARTS[:-1], SIZES, strict=True)):
            counts = attributes[row, index] >= 0 and mask[row] > 0
            assert bool(np.any(gradient[row, start : start + size])) == counts


def test_a_batch_without_annotations_learns_its_classes_alone(logits) -> None:
    absent, mask = np.full((B, 11), -1, np.int32), np.ones(B, np.float32)
    class_logits = jnp.asarray(_class_logits())
    losses = []
    for share in (0.0, 0.8):
        objective = Objective(num_classes=K, attribute_share=share)
        targets = objective.targets(_batch(absent, mask))
        loss, _ = objective.loss(
            class_logits, {"attribute_logits": jnp.asarray(logits)}, targets, jnp.asarray(mask)
        )
        losses.append(float(loss))
    assert losses[1] == pytest.approx(0.2 * losses[0], rel=1e-6)


def test_mixup_mixes_classes_and_attributes_with_one_partner(attributes) -> None:
    """The mixed loss is the mixture of the losses, and only annotated shares count."""
    mask = np.ones(B, np.float32)
    objective = Objective(num_classes=K, attribute_share=0.8)
    # The image's first pixel numbers the sample, so that the mixture can be read from it.
    images = jnp.broadcast_to(jnp.arange(B, dtype=jnp.float32)[:, None, None, None], (B, 2, 2, 3))
    targets = objective.targets(_batch(attributes, mask))
    mixed_images, mixed = mix(jax.random.key(3), images, targets, 0.4)
    assert mixed.attributes is not None
    assert targets.attributes is not None
    from wbc_jax.train.augment import mixup

    _, identity, lam = mixup(jax.random.key(3), images, jnp.eye(B), 0.4)
    shares = np.asarray(identity)  # (B, B): share of each sample in each mixture
    np.testing.assert_allclose(mixed_images[:, 0, 0, 0], shares @ np.arange(B), rtol=1e-6)
    np.testing.assert_allclose(mixed.attributes, shares @ np.asarray(targets.attributes), rtol=1e-6)
    np.testing.assert_allclose(mixed.classes, shares @ np.asarray(targets.classes), rtol=1e-6)
    np.testing.assert_allclose(attribute_weights(mixed.attributes), shares @ (attributes >= 0), rtol=1e-6)
    assert 0 < float(lam) < 1


def test_mixup_without_attributes_mixes_classes_alone() -> None:
    objective = Objective(num_classes=K)
    targets = objective.targets(_batch(np.full((B, 11), -1, np.int32), np.ones(B, np.float32)))
    assert targets.attributes is None
    _, mixed = mix(jax.random.key(0), jnp.zeros((B, 2, 2, 3)), targets, 0.4)
    assert mixed.attributes is None
    np.testing.assert_allclose(mixed.classes.sum(axis=-1), np.ones(B), rtol=1e-6)


def test_a_network_without_attributes_is_refused() -> None:
    objective = Objective(num_classes=K, attribute_share=0.8)
    targets = Targets(jnp.zeros((B, K)), jnp.zeros((B, 31)))
    with pytest.raises(ConfigError, match=r"train\.attribute_share"):
        objective.loss(jnp.zeros((B, K)), {}, targets, jnp.ones(B))

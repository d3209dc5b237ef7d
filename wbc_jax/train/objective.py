"""What training minimises: class cross entropy, with attribute cross entropy beside it (deep supervision)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from wbc_jax.data.batch import Batch
from wbc_jax.errors import ConfigError
from wbc_jax.train.attribute_losses import (
    attribute_cross_entropy,
    attribute_expected_correct,
    attribute_targets,
    attribute_weights,
)
from wbc_jax.train.augment import mixup
from wbc_jax.train.losses import cross_entropy, expected_correct, sample_weights, soft_labels


class Targets(NamedTuple):
    """Soft labels of a batch: `classes` float32 `(B, K)`; `attributes` float32 `(B, 31)`, None when they do not
    count."""

    classes: jax.Array
    attributes: jax.Array | None


@dataclass(frozen=True, kw_only=True)
class Objective:
    """The loss of a batch, `share * attributes + (1 - share) * classes` (DAFFNet, Eq. 1).

    The class term is the weighted mean over samples, the attribute term the mean over all annotated pairs of sample
    and attribute, weighted where samples' attributes have weights: a batch in which nothing is annotated adds 0 there.

    Attributes:
        num_classes: K.
        class_weights: weight of each class; None: 1 each.
        label_smoothing: share of each label spread over all classes, and over all values of an attribute.
        attribute_share: weight of the attribute term; 0: classes only.
        axis_name: pmap axis that the batch is split over. Means are over all devices.
    """

    num_classes: int
    class_weights: tuple[float, ...] | None = None
    label_smoothing: float = 0.0
    attribute_share: float = 0.0
    axis_name: str | None = None

    def targets(self, batch: Batch) -> Targets:
        """The labels of a batch; padding has no attributes."""
        classes = soft_labels(batch.labels, self.num_classes)
        if self.attribute_share == 0:
            return Targets(classes, None)
        weights = batch.mask if batch.attribute_weights is None else batch.mask * batch.attribute_weights
        return Targets(classes, attribute_targets(batch.attributes, weights))

    def loss(
        self, logits: jax.Array, endpoints: Mapping[str, jax.Array], targets: Targets, mask: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """This device's part of the loss, and its sums of what was right.

        Args:
            logits: `(B, K)`.
            endpoints: of the network; `attribute_logits` `(B, 31)` where attributes count.
            targets: from `targets`, perhaps mixed.
            mask: float32 `(B,)`, 0 for padding.

        Returns:
            float32 scalar, and `correct_sum` over samples, with attributes also `attribute_correct_sum` and
            `attribute_count` over annotated pairs.

        Raises:
            ConfigError: attributes count and the network predicts none.
        """
        weights = sample_weights(targets.classes, mask, self.class_weights)
        losses = cross_entropy(
            logits,
            targets.classes,
            class_weights=self.class_weights,
            label_smoothing=self.label_smoothing,
        )
        loss = jnp.sum(losses * mask) / self._divisor(weights)
        correct = {"correct_sum": jnp.sum(expected_correct(logits, targets.classes) * mask)}
        if targets.attributes is None:
            return loss, correct
        predicted = _attribute_logits(endpoints)
        pairs = attribute_weights(targets.attributes)  # (B, 11)
        losses = attribute_cross_entropy(
            predicted, targets.attributes, label_smoothing=self.label_smoothing
        )  # (B, 11)
        attribute_loss = jnp.sum(losses) / self._divisor(pairs)
        hits = attribute_expected_correct(predicted, targets.attributes)
        correct |= {"attribute_correct_sum": jnp.sum(hits), "attribute_count": jnp.sum(pairs)}
        return self.attribute_share * attribute_loss + (1.0 - self.attribute_share) * loss, correct

    def _divisor(self, weights: jax.Array) -> jax.Array:
        """Sum of the weights over all devices; where nothing counts, a divisor that is not zero."""
        total = jnp.sum(weights)
        total = total if self.axis_name is None else jax.lax.psum(total, self.axis_name)
        return jnp.maximum(total, jnp.finfo(jnp.float32).tiny)


def mix(key: jax.Array, images: jax.Array, targets: Targets, alpha: float) -> tuple[jax.Array, Targets]:
    """Mixup: a sample's image, class and attributes meet the same partner's under the same lambda."""
    if targets.attributes is None:
        images, classes, _ = mixup(key, images, targets.classes, alpha)
        return images, Targets(classes, None)
    side_by_side = jnp.concatenate([targets.classes, targets.attributes], axis=-1)  # (B, K + 31)
    images, mixed, _ = mixup(key, images, side_by_side, alpha)
    num_classes = targets.classes.shape[-1]
    return images, Targets(mixed[:, :num_classes], mixed[:, num_classes:])


def _attribute_logits(endpoints: Mapping[str, jax.Array]) -> jax.Array:
    if "attribute_logits" not in endpoints:
        raise ConfigError(
            "the network predicts no attributes",
            expected="a network with the endpoint attribute_logits, such as map_resnet50",
            where="train.attribute_share",
            remedy="set train.attribute_share 0, or choose another network",
        )
    return endpoints["attribute_logits"]

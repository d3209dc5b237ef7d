"""Loss of the morphological attributes: eleven soft-label cross entropies, absent labels left out.

A target is the 31 values of all attributes side by side, one-hot within each attribute and zero where the attribute
is not annotated. Cross entropy is linear in it, so a label's weight, the mask of padding and mixup's shares are all
factors of the target, and the mean divides by what the targets add up to (DAFFNet, Eq. 1 and deep supervision).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from wbc_jax.models.attribute_groups import group_log_softmax, group_one_hot, split_groups


def attribute_targets(attributes: jax.Array, weights: jax.Array) -> jax.Array:
    """Targets, float32 `(B, 31)`.

    Args:
        attributes: int32 `(B, 11)`, value indices in `catalog.ATTRIBUTES` order, -1 where not annotated.
        weights: float32 `(B,)`, factor of each sample: 0 for padding.
    """
    return group_one_hot(attributes) * weights[:, None]


def attribute_weights(targets: jax.Array) -> jax.Array:
    """What each attribute's target adds up to, float32 `(B, 11)`: 1 where annotated and 0 where not, if unweighted."""
    return jnp.stack([jnp.sum(group, axis=-1) for group in split_groups(targets)], axis=-1)


def attribute_cross_entropy(
    logits: jax.Array, targets: jax.Array, *, label_smoothing: float = 0.0
) -> jax.Array:
    """Cross entropy of each attribute, `-sum_v t_v log softmax(logits of its group)_v`.

    Args:
        logits: `(B, 31)`, any float dtype; computed in float32.
        targets: float32 `(B, 31)`, from `attribute_targets`, perhaps mixed.
        label_smoothing: share of each target spread evenly over its attribute's values, in [0, 1).

    Returns:
        float32 `(B, 11)`, 0 where not annotated. Divide its sum by that of `attribute_weights`.
    """
    losses = []
    for log_p, target in zip(split_groups(group_log_softmax(logits)), split_groups(targets), strict=True):
        even = jnp.mean(target, axis=-1, keepdims=True)  # (B, 1)
        smoothed = target * (1.0 - label_smoothing) + even * label_smoothing
        losses.append(-jnp.sum(smoothed * log_p, axis=-1))
    return jnp.stack(losses, axis=-1)


def attribute_expected_correct(scores: jax.Array, targets: jax.Array) -> jax.Array:
    """Target share of the value with the highest score, float32 `(B, 11)`: 1 or 0 for hard labels, 0 for absent ones.

    Args:
        scores: `(B, 31)`, logits or probabilities.
        targets: float32 `(B, 31)`.
    """
    correct = []
    for group, target in zip(split_groups(scores), split_groups(targets), strict=True):
        chosen = jax.nn.one_hot(jnp.argmax(group, axis=-1), group.shape[-1], dtype=jnp.float32)
        correct.append(jnp.sum(chosen * target, axis=-1))
    return jnp.stack(correct, axis=-1)

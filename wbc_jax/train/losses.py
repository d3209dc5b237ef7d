"""Soft-label cross entropy, kept as sums until the whole batch, over all devices, is known."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def soft_labels(labels: jax.Array, num_classes: int) -> jax.Array:
    """One-hot float32 `(B, K)` from int32 `(B,)`; a label outside 0…K-1 gives a row of zeros."""
    return jax.nn.one_hot(labels, num_classes, dtype=jnp.float32)


def cross_entropy(
    logits: jax.Array,
    targets: jax.Array,
    *,
    class_weights: tuple[float, ...] | None = None,
    label_smoothing: float = 0.0,
) -> jax.Array:
    """Cross entropy of each sample, `-sum_k w_k t_k log softmax(logits)_k`, in log-softmax form.

    Linear in `targets`, so the loss of mixed labels is the mixed loss (mixup, blocks.md 12).

    Args:
        logits: `(B, K)`, any float dtype; computed in float32.
        targets: float32 `(B, K)`, rows that sum to 1.
        class_weights: weight of each class, K numbers; None: 1 each.
        label_smoothing: share of each target spread evenly over all classes, in [0, 1).

    Returns:
        float32 `(B,)`, never masked. Divide its masked sum by the sum of `sample_weights`.
    """
    num_classes = logits.shape[-1]
    log_probabilities = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    smoothed = targets * (1.0 - label_smoothing) + label_smoothing / num_classes
    return -jnp.sum(smoothed * log_probabilities * _weights(class_weights, num_classes), axis=-1)


def sample_weights(
    targets: jax.Array, mask: jax.Array, class_weights: tuple[float, ...] | None = None
) -> jax.Array:
    """Share of each sample in the mean, float32 `(B,)`: its mask times the weight of its class.

    The weighted mean is that of torch's `CrossEntropyLoss(weight=...)` and scikit-learn's `sample_weight`.
    """
    weights = _weights(class_weights, targets.shape[-1])
    return mask * jnp.sum(targets * weights, axis=-1)


def expected_correct(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Target share of the predicted class, float32 `(B,)`: 1 or 0 for hard labels.

    For mixed labels this is the accuracy that mixup reports: lambda where the class of one image is predicted,
    1 - lambda for the other's (blocks.md 12).
    """
    predicted = jax.nn.one_hot(jnp.argmax(logits, axis=-1), logits.shape[-1], dtype=jnp.float32)
    return jnp.sum(targets * predicted, axis=-1)


def _weights(class_weights: tuple[float, ...] | None, num_classes: int) -> jax.Array:
    if class_weights is None:
        return jnp.ones((1, num_classes), jnp.float32)
    if len(class_weights) != num_classes:
        raise ValueError(f"{len(class_weights)} class weights for {num_classes} classes; give one a class")
    return jnp.asarray(class_weights, jnp.float32)[None, :]  # (1, K)

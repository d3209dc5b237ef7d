"""Linear heads on features computed once: a whole sweep of them in one program.

Every head of the grid, learning rate x weight decay x seed, is trained at the same time under vmap, all epochs under
scan. Heads of one seed see the same batches, so a step of all of them is one matrix product. Features are standardised
inside and the result is a head for the features as they are, ready to take the place of a network's last layer
(LP-FT: Kumar et al. 2022, arXiv:2202.10054).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from wbc_jax.train.losses import cross_entropy, sample_weights, soft_labels


class Features(NamedTuple):
    """Features of N images in V views with their labels: float32 `(N, V, D)`, int32 `(N,)`."""

    values: jax.Array
    labels: jax.Array


class Head(NamedTuple):
    """A linear layer, float32 `(D, K)` and `(K,)`, or those of a sweep with its axes in front."""

    kernel: jax.Array
    bias: jax.Array


class Scores(NamedTuple):
    """Of heads, float32 with a sweep's leading axes: mean cross entropy, share right, mean share right per class."""

    loss: jax.Array
    accuracy: jax.Array
    balanced_accuracy: jax.Array


def train_heads(
    features: Features,
    learning_rates: jax.Array,
    weight_decays: jax.Array,
    seeds: jax.Array,
    *,
    num_classes: int,
    epochs: int,
    batch_size: int,
    class_weights: tuple[float, ...] | None = None,
) -> Head:
    """A head for every seed and every pair of learning rate and weight decay.

    Adam with decoupled weight decay on the kernel, the rate falling to 0 along a cosine. The seed decides the order of
    the images, the view of each, and the initial kernel. A rest smaller than a batch is left out of an epoch.

    Args:
        features: of the training images; a step draws one of the views of each.
        learning_rates: float32 `(P,)`.
        weight_decays: float32 `(P,)`, relative to the learning rate.
        seeds: int32 `(S,)`.
        num_classes: K.
        epochs: passes over the images.
        batch_size: images of a step; all where there are fewer.
        class_weights: weight of each class in the loss; None: 1 each.

    Returns:
        Heads with leading axes `(S, P)`.
    """
    values, labels = features
    mean, spread = _standardisation(values)
    values = (values - mean) / spread
    count, views, _ = values.shape
    batch_size = min(batch_size, count)
    steps = count // batch_size
    targets = soft_labels(labels, num_classes)
    adam = optax.scale_by_adam()
    last = float(max(1, steps * epochs))

    def loss_of(head: Head, x: jax.Array, y: jax.Array) -> jax.Array:
        losses = cross_entropy(_logits(head, x), y, class_weights=class_weights)
        return jnp.sum(losses) / jnp.sum(sample_weights(y, jnp.ones_like(losses), class_weights))

    def update(
        head: Head, moments: Any, rate: jax.Array, decay: jax.Array, x: jax.Array, y: jax.Array
    ) -> tuple[Head, Any]:
        change: Any
        with jax.numpy_dtype_promotion("standard"):  # optax mixes its counter with Python numbers
            change, moments = adam.update(jax.grad(loss_of)(head, x, y), moments)
        kernel = head.kernel - rate * (change.kernel + decay * head.kernel)
        return Head(kernel, head.bias - rate * change.bias), moments

    update_all = jax.vmap(update, in_axes=(0, 0, 0, 0, None, None))

    def of_seed(seed: jax.Array) -> Head:
        def step(carry: Any, batch: tuple[jax.Array, jax.Array]) -> tuple[Any, None]:
            heads, moments, number = carry
            rows, view = batch
            rates = learning_rates * (0.5 + 0.5 * jnp.cos(number * (math.pi / last)))
            x, y = values[rows, view], targets[rows]  # (B, D), (B, K)
            heads, moments = update_all(heads, moments, rates, weight_decays, x, y)
            return (heads, moments, number + 1.0), None

        def epoch(carry: Any, key: jax.Array) -> tuple[Any, None]:
            order, drawn = jax.random.split(key)
            rows = jax.random.permutation(order, count)[: steps * batch_size].reshape(steps, batch_size)
            view = jax.random.randint(drawn, rows.shape, 0, views, jnp.int32)
            return jax.lax.scan(step, carry, (rows, view))

        first, rest = jax.random.split(jax.random.key(seed))
        heads = _initial(first, values.shape[-1], num_classes, len(learning_rates))
        carry = (heads, jax.vmap(adam.init)(heads), jnp.zeros((), jnp.float32))
        (heads, _, _), _ = jax.lax.scan(epoch, carry, jax.random.split(rest, epochs))
        return heads

    heads = jax.vmap(of_seed)(seeds)  # (S, P, …)
    kernel = heads.kernel / spread.reshape(1, 1, -1, 1)
    return Head(kernel, heads.bias - jnp.einsum("d,spdk->spk", mean.reshape(-1), kernel))


def score_heads(heads: Head, features: Features) -> Scores:
    """Scores of every head on the first view of each image; the scores have the sweep's axes.

    A class without images does not count in the balanced accuracy.
    """
    values, labels = features.values[:, 0], features.labels
    targets = soft_labels(labels, heads.bias.shape[-1])  # (N, K)
    per_class = jnp.sum(targets, axis=0)  # (K,)
    present = (per_class > 0).astype(jnp.float32)

    def score(head: Head) -> Scores:
        logits = _logits(head, values)
        right = (jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32)  # (N,)
        recall = (right @ targets) / jnp.maximum(per_class, 1.0)  # (K,)
        return Scores(
            loss=jnp.mean(cross_entropy(logits, targets)),
            accuracy=jnp.mean(right),
            balanced_accuracy=jnp.sum(recall * present) / jnp.sum(present),
        )

    for _ in heads.bias.shape[:-1]:
        score = jax.vmap(score)
    return score(heads)


def _logits(head: Head, values: jax.Array) -> jax.Array:
    """float32 `(N, D)` -> `(N, K)`."""
    return values @ head.kernel + head.bias[None]


def _standardisation(values: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and spread of each feature over images and views, `(1, 1, D)`; a constant feature keeps spread 1."""
    mean = jnp.mean(values, axis=(0, 1), keepdims=True)
    spread = jnp.std(values, axis=(0, 1), keepdims=True)
    # The mean of a constant is off by rounding, and its spread is that error, not 0.
    return mean, jnp.where(spread > 1e-5 * (1.0 + jnp.abs(mean)), spread, 1.0)


def _initial(key: jax.Array, inputs: int, num_classes: int, points: int) -> Head:
    """The same small random kernel for every point of a seed."""
    kernel = 0.01 * jax.random.normal(key, (inputs, num_classes), jnp.float32)
    return Head(
        jnp.broadcast_to(kernel, (points, *kernel.shape)), jnp.zeros((points, num_classes), jnp.float32)
    )

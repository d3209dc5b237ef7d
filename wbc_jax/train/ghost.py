"""Ghost BatchNorm (Hoffer et al. 2017, arXiv:1705.08741): each group of a large batch is normalised by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn


def ghost_groups(batch_size: int, ghost_batch_size: int) -> int:
    """Groups of equal size that a batch is cut into: the size is the divisor closest to the one asked for.

    Of two equally close sizes the larger is taken. It does not depend on the number of devices, so neither does a
    run; where the groups divide by the devices, statistics need no communication.
    """
    sizes = [size for size in range(1, batch_size + 1) if batch_size % size == 0]
    return batch_size // min(sizes, key=lambda size: (abs(size - ghost_batch_size), -size))


def apply_in_groups(
    model: nn.Module,
    variables: Any,
    images: jax.Array,
    groups: int,
    *,
    dropout: jax.Array,
    use_running_average: bool | None = None,
    extra: Mapping[str, jax.Array] | None = None,
) -> tuple[tuple[jax.Array, dict[str, jax.Array]], dict[str, Any]]:
    """A training pass in which the rows of each group see only each other's statistics.

    Args:
        model: network of the package's contract.
        variables: `{"params", "batch_stats"}`.
        images: float `(B, H, W, 3)`; group g holds the rows `g B/groups` to `(g + 1) B/groups`.
        groups: divides B.
        dropout: key; every group draws its own.
        use_running_average: passed to the network.
        extra: further inputs of the network by keyword, first axis B.

    Returns:
        `((logits, endpoints), updated)` as `model.apply` with mutable batch_stats does, first axes `(B, …)`. The new
        running statistics are the mean over the groups of those that each alone would leave.
    """

    def apply(images: jax.Array, key: jax.Array, extra: dict[str, Any]) -> Any:
        return model.apply(
            variables,
            images,
            train=True,
            use_running_average=use_running_average,
            mutable=["batch_stats"],
            rngs={"dropout": key},
            **extra,
        )

    given: dict[str, Any] = dict(extra or {})
    if groups == 1:
        return apply(images, dropout, given)
    per_group = jax.tree.map(
        lambda rows: rows.reshape(groups, -1, *rows.shape[1:]), (images, given)
    )  # (G, B/G, …)
    outputs, updated = jax.vmap(apply)(per_group[0], jax.random.split(dropout, groups), per_group[1])
    rows = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), outputs)  # (G, B/G, …) -> (B, …)
    return rows, jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), updated)

"""The output of a run's frozen attribute predictor for every training image, computed before the first step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from wbc_jax.config import Config
from wbc_jax.data.experiment import Samples
from wbc_jax.data.images import Images
from wbc_jax.models.compiler import jit
from wbc_jax.runtime.exchange import share_tree
from wbc_jax.train.known_attributes import Lookup, lookup, make_view_step


def known_attributes(config: Config, samples: Samples, model: Any, variables: Any) -> Lookup | None:
    """What `make_train_step` takes as `known_attributes`; None where `train.cache_map` is off.

    Every process computes it on one device of its own and takes that of process 0: it becomes part of the program,
    which must be the same on all of them, and processors differ in their rounding.

    Args:
        config: of the run.
        samples: its training images.
        model: network with the run's activation type.
        variables: `{"params", "batch_stats"}`, the predictor's as they stay.
    """
    if not config.train.cache_map:
        return None
    mirrored = config.augment.enabled and config.augment.flip
    step = make_view_step(model, image_size_px=config.data.image_size_px, mirrored=mirrored)
    rows = np.unique(samples.rows)
    views = compute_views(step, variables, samples.store.images, rows, config.eval.batch_size)
    known: np.ndarray = share_tree(views)  # (n, V, 31)
    table = np.zeros((int(rows[-1]) + 1, *known.shape[1:]), np.float32)
    table[rows] = known
    print(f"the attribute predictor's output is computed: {len(rows)} images, {known.shape[1]} views each")
    return lookup(table)


def compute_views(
    step: Callable[[Any, jax.Array], jax.Array],
    variables: Any,
    images: Images,
    rows: np.ndarray,
    batch_size: int,
) -> np.ndarray:
    """What a step from `make_view_step` gives for some images, float32 `(n, V, D)`, on one device of this process.

    Args:
        step: from `make_view_step`.
        variables: of its network, wherever they lie.
        images: uint8 `(N, S, S, 3)`.
        rows: int `(n,)` of `images`.
        batch_size: images at a time.
    """
    device = jax.local_devices()[0]
    variables = jax.device_put(jax.device_get(variables), device)
    compiled, size = jit(step), min(batch_size, len(rows))
    found = []
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        filled = np.resize(part, size)  # one shape, one program: the last batch begins anew
        seen = compiled(variables, jax.device_put(np.asarray(images[filled]), device))
        found.append(np.asarray(seen)[: len(part)])
    return np.concatenate(found)

"""The output of a run's frozen attribute predictor for every training image, computed before the first step."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from wbc_jax.config import Config
from wbc_jax.data.experiment import Samples
from wbc_jax.models.attribute_groups import TOTAL
from wbc_jax.train.known_attributes import NUM_MIRRORS, Lookup, lookup, make_view_step


def known_attributes(config: Config, samples: Samples, model: Any, variables: Any) -> Lookup | None:
    """What `make_train_step` takes as `known_attributes`; None where `train.cache_map` is off.

    Every process computes it on one device of its own.

    Args:
        config: of the run.
        samples: its training images.
        model: network with the run's activation type.
        variables: `{"params", "batch_stats"}`, the predictor's as they stay.
    """
    if not config.train.cache_map:
        return None
    mirrored = config.augment.enabled and config.augment.flip
    views = jax.jit(make_view_step(model, image_size_px=config.data.image_size_px, mirrored=mirrored))
    device = jax.local_devices()[0]
    variables = jax.device_put(jax.device_get(variables), device)
    rows = np.unique(samples.rows)
    table = np.zeros((int(rows[-1]) + 1, NUM_MIRRORS if mirrored else 1, TOTAL), np.float32)
    size = min(config.eval.batch_size, len(rows))
    for start in range(0, len(rows), size):
        chosen = np.resize(
            rows[start : start + size], size
        )  # the last batch is filled up: one shape, one program
        table[chosen] = views(variables, jax.device_put(np.asarray(samples.store.images[chosen]), device))
    print(f"the attribute predictor's output is computed: {len(rows)} images, {table.shape[1]} views each")
    return lookup(table)

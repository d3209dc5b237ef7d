"""Learning rate as a function of the number of updates, the same numbers on the host and inside the step."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from types import ModuleType
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

from wbc_jax.config import OptimConfig


def scaled(optim: OptimConfig, batch_size: int) -> OptimConfig:
    """`optim` with its peak learning rate scaled to the images of an update, `batch_size * accumulate_steps`."""
    ratio = batch_size * optim.accumulate_steps / optim.base_batch_size
    factor = {"none": 1.0, "linear": ratio, "sqrt": math.sqrt(ratio)}[optim.scale_learning_rate]
    return replace(optim, learning_rate=optim.learning_rate * factor)


def make_schedule(optim: OptimConfig, *, steps_per_epoch: int, epochs: int) -> optax.Schedule:
    """Updates made so far -> learning rate of the next one, float32; traceable.

    With W warm-up updates, update t (from 0) has `(t + 1) / W` of the rate until t + 1 = W: a first update at rate
    0 would be a wasted batch. Cosine falls from W to 0 just after the last update. Piecewise multiplies by
    one of `piecewise_factors` from each of `piecewise_epochs` on. Epochs count from the start of the run.

    Args:
        optim: names the schedule and its numbers; `accumulate_steps` batches make one update.
        steps_per_epoch: batches of an epoch.
        epochs: length of the run.
    """
    return partial(_rate, optim=optim, steps_per_epoch=steps_per_epoch, epochs=epochs, xp=jnp)


def learning_rate_at(optim: OptimConfig, step: int, *, steps_per_epoch: int, epochs: int) -> float:
    """Learning rate of the update that batch `step` (from 0) belongs to, for logs; touches no device.

    Updates left out by `skip_nonfinite_updates` are not known here: each delays the real rate by one update.
    """
    count = np.int32(step // optim.accumulate_steps)
    return float(_rate(count, optim=optim, steps_per_epoch=steps_per_epoch, epochs=epochs, xp=np))


def _rate(count: Any, *, optim: OptimConfig, steps_per_epoch: int, epochs: int, xp: ModuleType) -> Any:
    updates_per_epoch = steps_per_epoch / optim.accumulate_steps
    warmup = round(optim.warmup_epochs * updates_per_epoch)
    last = max(round(epochs * updates_per_epoch), warmup + 1)
    t = xp.asarray(count).astype(xp.float32)
    rate = optim.learning_rate * xp.minimum((t + 1.0) / max(warmup, 1), 1.0)
    if optim.schedule == "cosine":
        progress = xp.clip((t - warmup) / (last - warmup), 0.0, 1.0)
        rate = rate * 0.5 * (1.0 + xp.cos(math.pi * progress))
    elif optim.schedule == "piecewise":
        factor = xp.float32(1.0)
        for epoch, later in zip(optim.piecewise_epochs, optim.piecewise_factors, strict=True):
            factor = xp.where(t >= round(epoch * updates_per_epoch), xp.float32(later), factor)
        rate = rate * factor
    elif optim.schedule != "constant":
        raise ValueError(f"no schedule {optim.schedule!r}; there are constant, cosine, piecewise")
    return rate

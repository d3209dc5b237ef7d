"""(seed, epoch, step) -> samples: the only shuffle in the package.

Which samples a step trains on is a pure function of the seed and the global step, so a run is resumed by its step
number alone and every loader yields the same batches. The numbers come straight from the Philox counter generator,
whose raw stream NumPy keeps stable between versions, and not from `Generator` methods, whose streams it may change.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

Rows = np.ndarray  # int64 (n,)


def _random_u64(seed: int, epoch: int, n: int) -> np.ndarray:
    if seed < 0 or epoch < 0:
        raise ValueError(f"seed and epoch must not be negative, got seed={seed}, epoch={epoch}")
    return np.random.Philox(np.random.SeedSequence([seed, epoch])).random_raw(n)


def epoch_order(seed: int, epoch: int, n: int) -> Rows:
    """Return the permutation of `range(n)` that epoch `epoch` visits, int64 `(n,)`."""
    return np.argsort(_random_u64(seed, epoch, n), kind="stable").astype(np.int64)


def weighted_epoch_order(seed: int, epoch: int, weights: np.ndarray | tuple[float, ...]) -> Rows:
    """Draw n samples with replacement, each with probability `weights[i] / sum(weights)`.

    Args:
        weights: `(n,)`, finite, not negative, at least one above 0; they need not sum to 1.

    Returns:
        int64 `(n,)`.
    """
    weights = np.asarray(weights, np.float64)
    cumulative = np.cumsum(weights)
    uniform = (_random_u64(seed, epoch, weights.size) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    # side="right" never picks a sample of weight 0; the product may round up to the total, hence the bound.
    drawn = np.searchsorted(cumulative, uniform * cumulative[-1], side="right")
    return np.minimum(drawn, np.flatnonzero(weights)[-1]).astype(np.int64)


def steps_per_epoch(num_samples: int, batch_size: int) -> int:
    """Return the full batches in one epoch: the remainder is dropped, but there is always at least one."""
    return max(1, num_samples // batch_size)


@dataclass(frozen=True)
class OrderSpec:
    """All that decides the order of training samples.

    Attributes:
        seed: seed of every epoch's permutation, >= 0.
        num_samples: training samples, > 0.
        batch_size: samples per step over all devices and processes, > 0.
        weights: sampling weight of each sample, for drawing with replacement; None: each sample once an epoch.

    Raises:
        ValueError: if a number is out of range or the weights do not fit.
    """

    seed: int
    num_samples: int
    batch_size: int
    # Thousands of floats: compared, but left out of the hash, which is taken at every step.
    weights: tuple[float, ...] | None = field(default=None, hash=False, repr=False)

    def __post_init__(self) -> None:
        if self.seed < 0 or self.num_samples <= 0 or self.batch_size <= 0:
            raise ValueError(f"seed must be >= 0, num_samples and batch_size > 0, got {self}")
        if self.weights is None:
            return
        weights = np.asarray(self.weights, np.float64)
        if weights.shape != (self.num_samples,):
            raise ValueError(f"{weights.size} sampling weights for {self.num_samples} samples")
        if not np.all(np.isfinite(weights)) or weights.min() < 0.0 or weights.sum() <= 0.0:
            raise ValueError("sampling weights must be finite, not negative and not all 0")

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in one epoch."""
        return steps_per_epoch(self.num_samples, self.batch_size)


@functools.lru_cache(maxsize=4)
def _cached_order(spec: OrderSpec, epoch: int) -> Rows:
    if spec.weights is None:
        order = epoch_order(spec.seed, epoch, spec.num_samples)
    else:
        order = weighted_epoch_order(spec.seed, epoch, spec.weights)
    order.flags.writeable = False
    return order


def rows_for_step(spec: OrderSpec, step: int) -> Rows:
    """Return the training samples of global step `step`, positions in `range(num_samples)`, int64 `(batch_size,)`.

    An epoch of `n >= batch_size` samples gives `n // batch_size` batches and leaves its tail out; the next epoch
    shuffles anew, so other samples are left out. With fewer samples than a batch, permutations follow one another
    without a gap and a batch takes as many as it needs.
    """
    if step < 0:
        raise ValueError(f"step must not be negative, got {step}")
    n, size = spec.num_samples, spec.batch_size
    if n >= size:
        epoch, index = divmod(step, spec.steps_per_epoch)
        return _cached_order(spec, epoch)[index * size : (index + 1) * size].copy()
    first, last = step * size // n, ((step + 1) * size - 1) // n
    chained = np.concatenate([_cached_order(spec, i) for i in range(first, last + 1)])
    return chained[step * size - first * n :][:size]


def eval_batches(num_samples: int, batch_size: int) -> Iterator[tuple[Rows, np.ndarray]]:
    """Yield every sample once, in order, in batches of one size.

    Yields:
        positions int64 `(batch_size,)`, the last batch filled up with position 0, and mask float32 `(batch_size,)`:
        1 for a sample, 0 for filling.
    """
    for start in range(0, num_samples, batch_size):
        count = min(batch_size, num_samples - start)
        positions = np.zeros(batch_size, np.int64)
        positions[:count] = np.arange(start, start + count)
        yield positions, (np.arange(batch_size) < count).astype(np.float32)

"""The order of samples: permutations, chaining, sampling weights, and numbers pinned against library upgrades."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from wbc_jax.data.order import (
    OrderSpec,
    epoch_order,
    eval_batches,
    rows_for_step,
    steps_per_epoch,
    weighted_epoch_order,
)


def test_pinned_orders() -> None:
    # Written down once. If this fails after an upgrade, runs no longer resume onto the same data: do not re-pin
    # without raising the store's version.
    assert epoch_order(0, 0, 12).tolist() == [0, 8, 9, 3, 7, 5, 1, 11, 2, 10, 6, 4]
    assert epoch_order(7, 3, 12).tolist() == [7, 1, 9, 6, 0, 11, 10, 4, 2, 8, 3, 5]
    assert weighted_epoch_order(1, 2, np.arange(8)).tolist() == [4, 2, 6, 3, 4, 7, 7, 2]


@pytest.mark.parametrize("n", [1, 2, 17, 1000])
def test_epoch_order_is_a_permutation_that_differs_by_seed_and_epoch(n: int) -> None:
    order = epoch_order(3, 5, n)
    assert order.dtype == np.int64
    np.testing.assert_array_equal(np.sort(order), np.arange(n))
    np.testing.assert_array_equal(order, epoch_order(3, 5, n))
    if n >= 17:
        assert not np.array_equal(order, epoch_order(3, 6, n))
        assert not np.array_equal(order, epoch_order(4, 5, n))
        # (seed, epoch) must not be folded into one number: 3+5 and 5+3 differ.
        assert not np.array_equal(order, epoch_order(5, 3, n))


def test_epoch_order_is_unbiased() -> None:
    orders = np.stack([epoch_order(0, epoch, 5) for epoch in range(4000)])
    share = np.stack([(orders == value).mean(axis=0) for value in range(5)])
    np.testing.assert_allclose(share, 0.2, atol=0.03)


@pytest.mark.parametrize(("n", "batch", "steps"), [(10, 3, 3), (9, 3, 3), (3, 3, 1), (2, 3, 1), (1, 8, 1)])
def test_steps_per_epoch(n: int, batch: int, steps: int) -> None:
    assert steps_per_epoch(n, batch) == steps
    assert OrderSpec(seed=0, num_samples=n, batch_size=batch).steps_per_epoch == steps


def test_rows_follow_the_epoch_order_and_drop_the_remainder() -> None:
    spec = OrderSpec(seed=2, num_samples=11, batch_size=4)
    for epoch in range(3):
        rows = np.concatenate([rows_for_step(spec, epoch * 2 + k) for k in range(2)])
        np.testing.assert_array_equal(rows, epoch_order(2, epoch, 11)[:8])


@pytest.mark.parametrize("n", [1, 3, 7])
def test_small_sets_are_chained_without_a_gap(n: int) -> None:
    spec = OrderSpec(seed=1, num_samples=n, batch_size=8)
    rows = np.concatenate([rows_for_step(spec, step) for step in range(6)])
    chained = np.concatenate([epoch_order(1, epoch, n) for epoch in range(48 // n + 1)])
    np.testing.assert_array_equal(rows, chained[:48])


def test_a_callers_change_does_not_reach_later_steps() -> None:
    spec = OrderSpec(seed=1, num_samples=8, batch_size=4)
    first = rows_for_step(spec, 0)
    first[:] = -1
    assert rows_for_step(spec, 0).min() >= 0


def test_weights_set_the_share_of_draws() -> None:
    weights = np.array([0.0, 1.0, 3.0, 0.0, 4.0, 0.0])
    draws = np.concatenate([weighted_epoch_order(0, epoch, weights) for epoch in range(2000)])
    share = np.bincount(draws, minlength=6) / draws.size
    np.testing.assert_allclose(share, weights / 8.0, atol=0.015)
    assert share[[0, 3, 5]].tolist() == [0.0, 0.0, 0.0]


def test_weighted_spec_draws_by_weight_and_is_compared_by_it() -> None:
    spec = OrderSpec(seed=0, num_samples=4, batch_size=4, weights=(0.0, 1.0, 0.0, 1.0))
    other = OrderSpec(seed=0, num_samples=4, batch_size=4, weights=(1.0, 0.0, 1.0, 0.0))
    assert spec != other
    rows, others = (np.concatenate([rows_for_step(s, i) for i in range(20)]) for s in (spec, other))
    assert set(rows) == {1, 3}
    assert set(others) == {0, 2}


@pytest.mark.parametrize(
    "fields",
    [
        {"seed": -1},
        {"num_samples": 0},
        {"batch_size": 0},
        {"weights": (1.0, 1.0)},
        {"weights": (0.0, 0.0, 0.0)},
        {"weights": (1.0, -1.0, 1.0)},
        {"weights": (1.0, float("nan"), 1.0)},
    ],
)
def test_impossible_orders_are_refused(fields: dict[str, Any]) -> None:
    arguments: dict[str, Any] = {"seed": 0, "num_samples": 3, "batch_size": 2} | fields
    with pytest.raises(ValueError):
        OrderSpec(**arguments)


def test_negative_step_is_refused() -> None:
    with pytest.raises(ValueError):
        rows_for_step(OrderSpec(seed=0, num_samples=3, batch_size=2), -1)


@pytest.mark.parametrize("batch", [1, 3, 5, 6, 64])
def test_evaluation_visits_each_sample_once(batch: int) -> None:
    seen: list[int] = []
    for positions, mask in eval_batches(5, batch):
        assert positions.shape == mask.shape == (batch,)
        assert mask.dtype == np.float32
        seen += positions[mask == 1.0].tolist()
        assert set(positions[mask == 0.0]) <= {0}
    assert seen == [0, 1, 2, 3, 4]

"""Predictions of a set of samples: exact for any batch size on any number of devices, one batch ahead of the host."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wbc_jax.commands.scoring import predict_samples
from wbc_jax.data.experiment import Samples
from wbc_jax.train.parallel import compile_eval_step, data_mesh, split_by_row

COUNT = 11


@pytest.fixture(scope="module")
def samples() -> Samples:
    """Eleven images of 4 px, in another order than the store's."""
    random = np.random.default_rng(0)
    store: Any = SimpleNamespace(images=random.integers(0, 256, (20, 4, 4, 3), np.uint8))
    return Samples(
        store=store,
        rows=random.permutation(20)[:COUNT],
        labels=random.integers(0, 3, COUNT).astype(np.int32),
        attributes=np.full((COUNT, 11), -1, np.int32),
    )


def mean_colours(variables: Any, batch: Any) -> dict[str, jax.Array]:
    """Stands in for a network: the mean colours as probabilities, the sum of the labels as loss."""
    del variables
    return {
        "probabilities": jnp.mean(batch.images.astype(jnp.float32), axis=(1, 2)),
        "count": jnp.sum(batch.mask),
        "loss_sum": jnp.sum(batch.mask * batch.labels.astype(jnp.float32)),
    }


@pytest.mark.parametrize("batch_size", [1, 5, 8, 64])
def test_predictions_are_exact_for_any_batch_size(samples: Samples, batch_size: int) -> None:
    mesh = data_mesh()
    step = compile_eval_step(mean_colours, mesh)
    found = predict_samples(step, {}, samples, batch_size, sharding=split_by_row(mesh))
    images = samples.store.images[samples.rows].astype(np.float32)
    np.testing.assert_allclose(found.probabilities, images.mean(axis=(1, 2)), rtol=1e-6)
    assert found.loss == pytest.approx(samples.labels.mean())
    assert step.traces == 1


def test_a_batch_is_read_back_when_the_next_is_under_way(samples: Samples) -> None:
    log: list[tuple[str, int]] = []

    class Late:
        def __init__(self, number: int, value: np.ndarray) -> None:
            self._number, self._value = number, value

        def __array__(self) -> np.ndarray:
            log.append(("read", self._number))
            return self._value

    def step(variables: Any, batch: Any) -> dict[str, Any]:
        number = sum(name == "call" for name, _ in log)
        log.append(("call", number))
        ids = np.asarray(batch.ids)[:, None]
        return {"probabilities": Late(number, ids), "count": np.asarray(batch.mask).sum()}

    found = predict_samples(step, {}, samples, 4)
    assert log == [("call", 0), ("call", 1), ("read", 0), ("call", 2), ("read", 1), ("read", 2)]
    np.testing.assert_array_equal(found.probabilities[:, 0], samples.rows)

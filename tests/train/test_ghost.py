"""Ghost BatchNorm against NumPy, and the rule that scales the learning rate."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from toy_training import ToyNet, assert_trees_close, make_batch, make_training, run

from wbc_jax.config import OptimConfig
from wbc_jax.models.layers import BatchNorm
from wbc_jax.train.ghost import apply_in_groups, ghost_groups
from wbc_jax.train.schedules import scaled


class OnlyNorm(nn.Module):
    """A BatchNorm and nothing else."""

    @nn.compact
    def __call__(self, images, *, train: bool, use_running_average: bool | None = None):
        average = not train if use_running_average is None else use_running_average
        x = BatchNorm(name="bn")(images, use_running_average=average)
        return jnp.mean(x, axis=(1, 2)), {"normalised": x}


@pytest.mark.parametrize(
    ("batch_size", "asked", "groups"), [(256, 64, 4), (256, 1000, 1), (48, 20, 2), (32, 1, 32), (36, 10, 4)]
)
def test_groups_are_the_closest_that_divide(batch_size: int, asked: int, groups: int) -> None:
    assert ghost_groups(batch_size, asked) == groups


def test_every_group_is_normalised_by_itself() -> None:
    images = np.random.default_rng(0).normal(2.0, 3.0, (12, 5, 4, 3)).astype(np.float32)
    images[4:8] += 7.0
    model = OnlyNorm()
    variables = model.init(jax.random.key(0), images, train=False)
    (_, endpoints), updated = apply_in_groups(model, variables, images, 3, dropout=jax.random.key(1))
    groups = images.reshape(3, 4, 5, 4, 3).astype(np.float64)
    mean, var = groups.mean(axis=(1, 2, 3)), groups.var(axis=(1, 2, 3))  # (3, 3)
    expected = (groups - mean[:, None, None, None]) / np.sqrt(var + 1e-5)[:, None, None, None]
    np.testing.assert_allclose(endpoints["normalised"], expected.reshape(images.shape), atol=1e-4)
    stats = updated["batch_stats"]["bn"]
    np.testing.assert_allclose(stats["mean"], 0.1 * mean.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * var.mean(axis=0), rtol=1e-4)


def test_a_network_without_batch_norm_does_not_notice_groups() -> None:
    batches = [make_batch(8, seed) for seed in range(2)]
    plain, grouped = (
        run(jax.jit(step), state, batches)
        for state, step in (
            make_training(ToyNet(batch_norm=False)),
            make_training(ToyNet(batch_norm=False), ghost_batch_size=2),
        )
    )
    assert_trees_close(plain[0], grouped[0], rtol=1e-4, atol=1e-6)


def test_groups_change_a_network_with_batch_norm_and_one_group_does_not() -> None:
    batch = make_batch(8)
    runs = {}
    for size in (None, 8, 2):
        state, step = make_training(ghost_batch_size=size)
        runs[size] = run(jax.jit(step), state, [batch])[1][0]["loss_sum"]
    assert runs[8] == runs[None]
    assert abs(runs[2] - runs[None]) > 1e-3


@pytest.mark.parametrize(("rule", "rate"), [("none", 0.1), ("linear", 0.8), ("sqrt", 0.1 * 8**0.5)])
def test_learning_rate_grows_with_the_images_of_an_update(rule, rate: float) -> None:
    optim = OptimConfig(learning_rate=0.1, scale_learning_rate=rule, base_batch_size=64, accumulate_steps=2)
    assert scaled(optim, 256).learning_rate == pytest.approx(rate)

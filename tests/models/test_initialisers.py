"""Spread of the initialisers, alone and where a whole network's weights are drawn at once."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from wbc_jax.models import create_model
from wbc_jax.models.initialisers import (
    init_variables,
    kaiming_fan_in,
    kaiming_fan_out,
    normal,
    torch_default,
    torch_default_bias,
)

SHAPE = (3, 3, 64, 128)
IMAGES = jnp.zeros((1, 32, 32, 3))


@pytest.mark.parametrize(
    ("initialiser", "deviation"),
    [
        (kaiming_fan_out, np.sqrt(2 / (9 * 128))),
        (kaiming_fan_in, np.sqrt(2 / (9 * 64))),
        (normal(0.01), 0.01),
    ],
)
def test_normal_ones_are_not_truncated(initialiser, deviation: float) -> None:
    values = initialiser(jax.random.key(0), SHAPE, jnp.float32)
    np.testing.assert_allclose(values.std(), deviation, rtol=0.02)
    assert np.abs(values).max() > 3.5 * deviation


def test_uniform_ones_reach_torchs_bound() -> None:
    key, bound = jax.random.key(0), 1 / np.sqrt(9 * 64)
    for values in (
        torch_default(key, SHAPE, jnp.float32),
        torch_default_bias(9 * 64)(key, (4096,), jnp.float32),
    ):
        assert 0.99 * bound < np.abs(values).max() <= bound * 1.0001
        np.testing.assert_allclose(values.std(), bound / np.sqrt(3), rtol=0.03)


@pytest.mark.parametrize("name", ["scam_tiny", "vit_b_16"])
def test_weights_drawn_at_once_are_spread_as_those_drawn_one_by_one(name: str) -> None:
    """Every leaf, beside a network whose initialisers draw for themselves."""
    small = {"depth": 2, "features": 32, "heads": 2, "mlp_features": 64, "image_size_px": 32}
    model = create_model(name, num_classes=3, **(small if name == "vit_b_16" else {}))
    draw = jax.jit(lambda key: init_variables(model, key, IMAGES))
    at_once, again, other = (
        traverse_util.flatten_dict(draw(jax.random.key(seed)), sep="/") for seed in (0, 0, 1)
    )
    one_by_one = jax.eval_shape(lambda: model.init(jax.random.key(0), IMAGES, train=False))
    shapes = traverse_util.flatten_dict(one_by_one, sep="/")
    assert {k: (v.shape, v.dtype) for k, v in at_once.items()} == {
        k: (v.shape, v.dtype) for k, v in shapes.items()
    }
    seen = []
    for path, values in at_once.items():
        np.testing.assert_array_equal(values, again[path])
        if values.size < 500 or values.std() == 0:
            continue
        assert abs(float(values.mean())) < 5 * float(values.std()) / np.sqrt(values.size)
        assert not np.array_equal(values, other[path])
        seen.append(np.asarray(values).ravel()[:500] / np.asarray(values).std())
    correlations = np.corrcoef(np.stack(seen)) - np.eye(len(seen))
    assert len(seen) > 5
    assert np.abs(correlations).max() < 6 / np.sqrt(500)


def test_a_network_draws_two_vectors() -> None:
    model = create_model("resnet_tiny", num_classes=3)
    text = str(jax.make_jaxpr(lambda key: init_variables(model, key, IMAGES)["params"])(jax.random.key(0)))
    assert text.count("random_bits[") == 2


def test_deviation_of_each_kernel_is_that_of_its_fan() -> None:
    model = create_model("resnet_tiny", num_classes=3)
    params = traverse_util.flatten_dict(
        jax.jit(lambda: init_variables(model, jax.random.key(0), IMAGES))()["params"], sep="/"
    )
    kernels = {k: v for k, v in params.items() if v.ndim == 4}
    assert len(kernels) > 10
    for path, kernel in kernels.items():
        expected = np.sqrt(2 / (kernel.shape[0] * kernel.shape[1] * kernel.shape[3]))
        np.testing.assert_allclose(kernel.std(), expected, rtol=4 / np.sqrt(kernel.size), err_msg=path)

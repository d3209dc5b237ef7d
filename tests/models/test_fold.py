"""Folding BatchNorm changes nothing but the number of operations."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wbc_jax.models import create_model
from wbc_jax.models.fold import fold_batch_norm


def _variables(model: Any, images: jax.Array) -> Any:
    """Initial parameters with every norm parameter and statistic a number of its own."""
    variables = model.init(jax.random.key(0), images, train=False)
    generator = np.random.default_rng(0)

    def disturb(path: Any, leaf: jax.Array) -> jax.Array:
        name = path[-1].key
        if name in ("scale", "var"):
            return jnp.asarray(generator.uniform(0.5, 1.5, leaf.shape), jnp.float32)
        if name in ("bias", "mean"):
            return jnp.asarray(generator.uniform(-0.3, 0.3, leaf.shape), jnp.float32)
        return leaf

    return jax.tree_util.tree_map_with_path(disturb, variables)


@pytest.mark.parametrize("trunk_name", ["resnet_tiny", "resnet_bottleneck_tiny"])
def test_folded_predictor_is_the_predictor_in_evaluation(trunk_name: str) -> None:
    fields: dict[str, Any] = {"num_classes": 5, "trunk_name": trunk_name, "feature_units": 16}
    images = jax.random.normal(jax.random.key(1), (2, 32, 32, 3))
    model = create_model("map_tiny", **fields)
    variables = _variables(model, images)
    logits, endpoints = model.apply(variables, images, train=False)

    folded = fold_batch_norm(variables)
    assert "batch_stats" not in folded
    lighter = create_model("map_tiny", norm="folded", **fields)
    expected = jax.eval_shape(lambda: lighter.init(jax.random.key(0), images, train=False))
    assert jax.tree.map(jnp.shape, folded) == jax.tree.map(jnp.shape, expected)
    got, got_endpoints = lighter.apply(folded, images, train=False)
    np.testing.assert_allclose(got, logits, atol=1e-5)
    for name in ("trunk/stem", "trunk/stage1", "trunk/stage4", "attribute_logits"):
        np.testing.assert_allclose(
            got_endpoints[name], endpoints[name], atol=1e-5 * np.abs(endpoints[name]).max()
        )


def test_frozen_predictor_of_daffnet_folds_and_can_be_given_its_output() -> None:
    images = jax.random.normal(jax.random.key(1), (2, 32, 32, 3))
    model = create_model("daffnet_tiny", num_classes=5, semantic_units=16)
    variables = _variables(model, images)
    logits, endpoints = model.apply(variables, images, train=False)

    part = {kind: variables[kind]["map"] for kind in ("params", "batch_stats")}
    params = {**variables["params"], "map": fold_batch_norm(part)["params"]}
    statistics = {name: tree for name, tree in variables["batch_stats"].items() if name != "map"}
    lighter = create_model("daffnet_tiny", num_classes=5, semantic_units=16, fold_map=True)
    got, _ = lighter.apply({"params": params, "batch_stats": statistics}, images, train=False)
    np.testing.assert_allclose(got, logits, atol=1e-5)

    without = {kind: {n: t for n, t in variables[kind].items() if n != "map"} for kind in variables}
    given, _ = model.apply(without, images, train=False, attribute_logits=endpoints["attribute_logits"])
    np.testing.assert_allclose(given, logits, atol=1e-6)


def test_a_norm_without_its_convolution_is_refused() -> None:
    model = create_model("epsanet_tiny", num_classes=None)
    variables = model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False)
    with pytest.raises(ValueError, match="bn2 follows no conv2"):
        fold_batch_norm(variables)

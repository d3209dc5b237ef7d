"""WBC-AMNet's recipe: the learning rate's steps, the search of Table 3, the tasks, the input's range, the ablations."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wbc_jax.catalog import TASKS, label_map
from wbc_jax.commands.run import build_model
from wbc_jax.config import Config
from wbc_jax.config_check import validate
from wbc_jax.configs import amnet, get_recipe
from wbc_jax.models.amnet import to_half_range
from wbc_jax.train.augment import normalize
from wbc_jax.train.schedules import learning_rate_at


def test_learning_rate_falls_five_times_at_sixths_of_the_run() -> None:
    config = amnet.for_length(get_recipe("amnet"), epochs=12, batch_size=16)
    rates = [learning_rate_at(config.optim, t, steps_per_epoch=5, epochs=12) for t in range(60)]
    shares = np.repeat([1.0, 0.5, 0.25, 0.1, 0.01, 0.002], 10)
    np.testing.assert_allclose(rates, 1e-3 * shares, rtol=1e-6)
    assert (config.train.epochs, config.train.batch_size) == (12, 16)


@pytest.mark.parametrize(("epochs", "batch_size"), amnet.SEARCH)
def test_every_point_of_the_search_is_a_sound_recipe(epochs: int, batch_size: int) -> None:
    config = amnet.for_length(amnet.tri(), epochs, batch_size)
    assert validate(config) == []
    assert config.optim.piecewise_epochs[-1] < epochs


@pytest.mark.parametrize(
    ("recipe", "dataset", "merged", "apart"),
    [
        ("amnet", "bccd_kaggle", (), ("monocyte", "neutrophil", "eosinophil", "lymphocyte")),
        ("amnet:tri", "bccd_kaggle", ("monocyte", "neutrophil"), ("eosinophil", "lymphocyte")),
        ("amnet:wbcs_quad", "wbcs", (), ("monocyte", "neutrophil", "eosinophil", "lymphocyte")),
        ("amnet:wbcs_tri", "wbcs", ("monocyte", "eosinophil"), ("neutrophil", "lymphocyte")),
    ],
)
def test_tasks_merge_what_the_paper_merges(recipe: str, dataset: str, merged: tuple, apart: tuple) -> None:
    config = get_recipe(recipe)
    assert config.data.dataset == dataset
    assert config.data.task != "native"
    task = TASKS[config.data.task]
    if merged:
        assert len(set(label_map(task, merged).tolist())) == 1
    alone = label_map(task, (*apart, *merged[:1])).tolist()
    assert sorted(alone) == list(range(task.num_classes))


def test_full_recipe_has_the_parameter_total_of_the_layer_table() -> None:
    model = build_model(get_recipe("amnet").model, 4)
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), images)
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes["params"])) == 26_285_172


def test_half_range_is_grey_levels_less_127_5() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3), dtype=np.uint8)
    expected = (grey.astype(np.float64) - 127.5) / 127.5
    np.testing.assert_allclose(to_half_range(normalize(jnp.asarray(grey))), expected, atol=1e-6)


def test_input_range_and_ablations_reach_the_network() -> None:
    images = jax.random.normal(jax.random.key(1), (2, 64, 64, 3))
    base = get_recipe("amnet:tiny").model
    plain = build_model(base, 4)
    variables = jax.jit(lambda: plain.init(jax.random.key(0), images, train=False))()
    half = build_model(dataclasses.replace(base, input_scaling="half"), 4)

    @jax.jit
    def both(variables, images):
        return half.apply(variables, images, train=False)[0], plain.apply(
            variables, to_half_range(images), train=False
        )[0]

    np.testing.assert_array_equal(*both(variables, images))
    for field, value, lost in (
        ("use_se", False, "se"),
        ("use_ge", False, "ge"),
        ("use_fusion", False, "project"),
    ):
        model = build_model(dataclasses.replace(base, **{field: value}), 4)
        shapes = jax.eval_shape(lambda x, m=model: m.init(jax.random.key(0), x, train=False), images)
        assert lost in variables["params"]["attention"]
        assert lost not in shapes["params"].get("attention", {})


def test_an_attention_without_terms_is_refused() -> None:
    config = Config()
    model = dataclasses.replace(config.model, name="amnet", use_se=False, use_ge=False, use_fusion=False)
    (problem,) = validate(dataclasses.replace(config, model=model))
    assert problem.path == "model.use_fusion"


def test_factors_must_match_the_epochs() -> None:
    config = get_recipe("amnet")
    optim = dataclasses.replace(config.optim, piecewise_factors=(0.5, 0.0))
    problems = validate(dataclasses.replace(config, optim=optim))
    assert [p.path for p in problems] == ["optim.piecewise_factors"] * 2
    assert "5 optim.piecewise_epochs" in str(problems[0])

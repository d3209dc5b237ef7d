"""Configs: strict JSON both ways, every problem at once, every recipe sound."""

from __future__ import annotations

import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import pytest

from wbc_jax import catalog, models
from wbc_jax.commands.config import known_facts
from wbc_jax.commands.run import build_model
from wbc_jax.config import Config
from wbc_jax.config_check import Facts, require_valid, validate
from wbc_jax.config_json import differences, digest, flatten, from_json, to_dict, to_json
from wbc_jax.configs import get_recipe, recipe_names, recipe_title
from wbc_jax.errors import ConfigError


def _with(path: str, value: object) -> Config:
    group, name = path.split(".")
    config = Config()
    return dataclasses.replace(
        config, **{group: dataclasses.replace(getattr(config, group), **{name: value})}
    )


@pytest.mark.parametrize("name", recipe_names())
def test_recipe_is_valid_round_trips_and_builds(name: str) -> None:
    config = get_recipe(name)
    assert validate(config, known_facts(config)) == []
    assert from_json(to_json(config)) == config
    assert recipe_title(name)
    task = catalog.TASKS["wbc5"]
    model = build_model(config.model, task.num_classes)
    size = config.data.image_size_px
    images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), images)
    logits, _ = jax.eval_shape(lambda v, x: model.apply(v, x, train=False), shapes, images)
    assert logits.shape == (2, 5)


def test_full_scam_recipe_has_the_parameter_total_of_the_layer_table() -> None:
    model = build_model(get_recipe("scam").model, 5)
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), images)
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes["params"])) == 32_201_801


def test_unknown_recipe_names_the_closest() -> None:
    with pytest.raises(ConfigError, match="did you mean scam:tiny"):
        get_recipe("scam:tinny")


def test_json_reports_every_broken_field_at_once() -> None:
    tree = json.loads(to_json(Config()))
    tree["train"]["epochs"] = 3.5
    tree["optim"]["name"] = "adagrad"
    tree["model"]["atention"] = tree["model"].pop("attention")
    tree["augment"]["scale"] = [0.9, "x"]
    with pytest.raises(ConfigError) as caught:
        from_json(json.dumps(tree))
    text = str(caught.value)
    for part in (
        "train.epochs: found 3.5",
        "optim.name",
        "'radam'",
        "model.atention: unknown",
        "model.attention: missing",
    ):
        assert part in text
    assert "augment.scale" in text


@pytest.mark.parametrize("text", ["{", "[]", '{"version": 99}', '{"version": 1, "data": 3}'])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        from_json(text)


def test_all_problems_are_found_at_once_in_field_order() -> None:
    config = dataclasses.replace(
        Config(),
        data=dataclasses.replace(Config().data, dataset="pcb", image_size_px=3),
        optim=dataclasses.replace(Config().optim, learning_rate=math.nan, piecewise_epochs=(3.0, 2.0)),
        train=dataclasses.replace(Config().train, batch_size=30),
    )
    problems = validate(config, Facts(datasets=("pbc", "lisc"), num_devices=4))
    assert [p.path for p in problems] == [
        "data.dataset",
        "data.image_size_px",
        "optim.learning_rate",
        "optim.piecewise_epochs",
        "optim.piecewise_epochs",
        "train.batch_size",
    ]
    assert "did you mean pbc?" in str(problems[0])
    with pytest.raises(ConfigError, match="6 problems"):
        require_valid(config, Facts(datasets=("pbc", "lisc"), num_devices=4))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("augment.scale", (1.2, 0.8)),
        ("augment.rotation_deg", (-10.0, 200.0)),
        ("augment.crop_area", (0.5, 0.1)),
        ("augment.crop_ratio", (0.5, 2.0)),
        ("augment.colour_probability", 1.5),
        ("optim.piecewise_factors", (0.5,)),
        ("train.freeze", ()),
        ("model.pretrained_resnet", "weights.pth"),
        ("runtime.num_devices", 9),
        ("optim.warmup_epochs", 50.0),
    ],
)
def test_single_rules(path: str, value: object) -> None:
    config = _with(path, value)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, name="resnet50"))
    facts = Facts(num_devices=1)
    expected = [] if path == "train.freeze" else [path]
    assert [p.path for p in validate(config, facts)] == expected


def test_evaluation_batch_need_not_divide_by_the_devices() -> None:
    config = _with("eval.batch_size", 64)
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, batch_size=12))
    assert validate(config, Facts(num_devices=6)) == []


def test_option_without_effect_is_refused() -> None:
    config = _with("model.attention", "csam")
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, name="resnet50"))
    (problem,) = validate(config, Facts(model_fields=models.model_fields("resnet50")))
    assert problem.path == "model.attention"
    assert "no effect" in problem.rule


def test_every_range_names_a_field() -> None:
    from wbc_jax.config_check import _RANGES

    assert {path for path, *_ in _RANGES} <= set(flatten(to_dict(Config())))


def test_differences_and_digest_follow_values() -> None:
    changed = _with("train.epochs", 99)
    assert differences(Config(), changed) == [f"train.epochs: {Config().train.epochs} -> 99"]
    assert digest(changed) != digest(Config()) == digest(from_json(to_json(Config())))

"""A frozen branch costs no backward pass, folded no BatchNorm, cached no forward pass, and the training is the same."""

from __future__ import annotations

import dataclasses
from functools import cache
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from toy_training import TASK, make_batch

from wbc_jax.commands import predictor_cache
from wbc_jax.config import AugmentConfig, Config, DataConfig, ModelConfig, OptimConfig, TrainConfig
from wbc_jax.config_check import validate
from wbc_jax.models import create_model
from wbc_jax.models.fold import fold_batch_norm
from wbc_jax.models.lowerings import KINDS, forms
from wbc_jax.train.augment import center
from wbc_jax.train.freeze import partition
from wbc_jax.train.ghost import apply_in_groups
from wbc_jax.train.known_attributes import lookup, make_view_step
from wbc_jax.train.optim import make_optimizer
from wbc_jax.train.state import TrainState
from wbc_jax.train.steps import make_train_step

SIZE = 24
FIELDS: dict[str, Any] = {
    "num_classes": TASK.num_classes,
    "semantic_name": "resnet_tiny",
    "semantic_units": 16,
}
FIELDS["spatial_gate"] = "none"
TX = make_optimizer(
    OptimConfig(name="sgd", learning_rate=0.05, schedule="constant"), steps_per_epoch=1, epochs=1
)


@cache
def variables() -> dict[str, Any]:
    """Of a joint network; every norm's parameter and statistic a number of its own."""
    images = jnp.zeros((1, SIZE, SIZE, 3))
    model = create_model("daffnet_tiny", **FIELDS)
    shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), images)
    random = np.random.default_rng(0)

    def disturb(path: Any, leaf: jax.Array) -> jax.Array:
        low, high = {"scale": (0.5, 1.5), "var": (0.5, 1.5)}.get(path[-1].key, (-0.1, 0.1))
        return jnp.asarray(random.uniform(low, high, leaf.shape), jnp.float32)

    return jax.tree_util.tree_map_with_path(disturb, shapes)


def folded(whole: dict[str, Any]) -> dict[str, Any]:
    part = fold_batch_norm({kind: whole[kind]["map"] for kind in ("params", "batch_stats")})
    statistics = {name: tree for name, tree in whole["batch_stats"].items() if name != "map"}
    return {"params": {**whole["params"], "map": part["params"]}, "batch_stats": statistics}


def start(variables: dict[str, Any], freeze: tuple[str, ...]) -> TrainState:
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        opt_state=TX.init(partition(variables["params"], freeze)[0]),
        ema_params=None,
        ema_batch_stats=None,
    )


def step_of(freeze: tuple[str, ...] = ("map",), *, fields: Any = None, **options: Any) -> Any:
    model = create_model("daffnet_tiny", **FIELDS, **(fields or {}))
    return make_train_step(
        model, TX, TASK, lambda key, images: center(images, SIZE), freeze=freeze, **options
    )


@cache
def batch() -> Any:
    return make_batch(8, image_size_px=SIZE)


def contractions(step: Any, state: TrainState) -> int:
    """Convolutions and matrix products of a whole training step, wherever they are nested."""

    def count(jaxpr: Any) -> int:
        total = 0
        for equation in jaxpr.eqns:
            total += equation.primitive.name in ("conv_general_dilated", "dot_general")
            for value in equation.params.values():
                inner = getattr(value, "jaxpr", value)
                total += count(inner) if hasattr(inner, "eqns") else 0
        return total

    return count(jax.make_jaxpr(step)(state, batch()).jaxpr)


def predictor_contractions() -> int:
    """The tiny predictor: stem, two convolutions and, but for the first, a projection in each of four blocks, the
    linear layer and the heads."""
    return 1 + 4 * 2 + 3 + 2


@cache
def known(mirrored: bool = False) -> np.ndarray:
    model = create_model("daffnet_tiny", **FIELDS)
    views = make_view_step(model, image_size_px=SIZE, mirrored=mirrored)
    views = jax.jit(views, compiler_options={"xla_backend_optimization_level": 0})
    return np.asarray(views(variables(), batch().images))


def test_backward_and_forward_pass_of_the_predictor_are_left_out() -> None:
    joint = step_of((), fields={"freeze_map": False, "map_gradient": True})
    table = known()
    # Other forms take several products for one convolution.
    with forms(**dict.fromkeys(KINDS, "native")):
        counts = {
            "joint": contractions(joint, start(variables(), ())),
            "frozen": contractions(step_of(), start(variables(), ("map",))),
            "cached": contractions(step_of(known_attributes=lookup(table)), start(variables(), ("map",))),
        }
    forward = predictor_contractions()
    assert counts["frozen"] - counts["cached"] == forward
    # Backward: a product for each weight and one for each input but the image; and the encoder's eleven first layers
    # pass a gradient on to the probabilities.
    assert counts["joint"] - counts["frozen"] == 2 * forward - 1 + 11


def once(step: Any, state: TrainState) -> tuple[TrainState, Any]:
    """One step, compiled in a hurry: it runs but once."""
    options = {"xla_backend_optimization_level": 0}
    return jax.jit(step, compiler_options=options)(state, batch())


@cache
def reference_step() -> tuple[TrainState, Any]:
    return once(step_of(), start(variables(), ("map",)))


@pytest.mark.parametrize("kind", ["folded", "cached"])
def test_training_is_that_of_the_frozen_predictor(kind: str) -> None:
    reference, reference_sums = reference_step()
    if kind == "folded":
        step, state = step_of(fields={"fold_map": True}), start(folded(variables()), ("map",))
    else:
        step, state = step_of(known_attributes=lookup(known())), start(variables(), ("map",))
    state, sums = once(step, state)
    np.testing.assert_allclose(sums["loss_sum"], reference_sums["loss_sum"], rtol=1e-5)
    for name in ("semantic", "mae", "logits"):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-5),
            state.params[name],
            reference.params[name],
        )
    if kind == "cached":  # nothing of the predictor is touched, its statistics least of all
        for part in ("params", "batch_stats"):
            jax.tree.map(np.testing.assert_array_equal, getattr(state, part)["map"], variables()[part]["map"])


def test_every_mirror_image_has_its_own_output_and_is_drawn() -> None:
    table = known(mirrored=True)
    model = create_model("daffnet_tiny", **FIELDS)
    images = center(jnp.asarray(batch().images), SIZE)
    _, endpoints = model.apply(variables(), images[:, ::-1, ::-1], train=False)
    np.testing.assert_allclose(table[:, 3], endpoints["attribute_logits"], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(lookup(table[:, :1])(jax.random.key(0), jnp.arange(8)), table[:, 0])

    ids = np.random.default_rng(0).integers(0, 8, 64).astype(np.int32)
    drawn = np.asarray(lookup(table)(jax.random.key(3), jnp.asarray(ids)))
    views = [int(np.flatnonzero((table[i] == row).all(axis=1))[0]) for i, row in zip(ids, drawn, strict=True)]
    assert set(views) == {0, 1, 2, 3}


def test_every_process_takes_the_table_of_process_0(monkeypatch: pytest.MonkeyPatch) -> None:
    own, first = np.zeros((3, 1, 31), np.float32), np.full((3, 1, 31), 0.5, np.float32)
    monkeypatch.setattr(predictor_cache, "compute_views", lambda *_: own)
    monkeypatch.setattr(predictor_cache, "share_tree", lambda tree: first if tree is own else tree)
    config = Config(augment=AugmentConfig(enabled=False), train=TrainConfig(cache_map=True))
    samples: Any = SimpleNamespace(rows=np.array([4, 1, 2]), store=SimpleNamespace(images=None))
    table = predictor_cache.known_attributes(config, samples, None, {})
    assert table is not None
    logits = table(jax.random.key(0), jnp.array([4, 1, 2, 3]))
    np.testing.assert_array_equal(logits[:, 0], [0.5, 0.5, 0.5, 0.0])


class Shifted(nn.Module):
    """Mean of an image plus what is known of it."""

    @nn.compact
    def __call__(self, images: Any, *, train: bool, use_running_average: Any, attribute_logits: Any) -> Any:
        return jnp.mean(images, axis=(1, 2)) + attribute_logits, {}


def test_ghost_groups_get_their_own_rows_of_what_is_known() -> None:
    images, known = jnp.ones((6, 2, 2, 3)), jnp.arange(18.0).reshape(6, 3)
    (logits, _), _ = apply_in_groups(
        Shifted(), {}, images, 3, dropout=jax.random.key(0), extra={"attribute_logits": known}
    )
    np.testing.assert_array_equal(logits, 1 + known)


def test_what_cannot_be_cached_or_folded_is_refused() -> None:
    config = Config(
        data=DataConfig(dataset="pbc"),
        model=ModelConfig(name="daffnet_tiny", freeze_map=False, fold_map=True),
        augment=AugmentConfig(mixup_alpha=0.2),
        train=TrainConfig(cache_map=True),
    )
    found = [str(problem) for problem in validate(config)]
    assert sum("needs a frozen attribute predictor" in text for text in found) == 2
    assert sum("mixed by mixup" in text for text in found) == 1
    fine = dataclasses.replace(
        config, model=ModelConfig(name="daffnet_tiny", fold_map=True), augment=AugmentConfig(mixup_alpha=0.0)
    )
    assert validate(fine) == []

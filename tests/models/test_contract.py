"""What every network promises: names, logits and endpoints, gradients, dtypes, a head that can be changed."""

from __future__ import annotations

import functools
import subprocess
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contracts import FAMILIES, NETWORKS, SMALL, family_of
from flax import traverse_util

from wbc_jax.errors import UsageError
from wbc_jax.models import create_model, list_models, model_fields
from wbc_jax.models.densenet import DenseNet
from wbc_jax.models.endpoints import tap_variables
from wbc_jax.models.initialisers import init_variables
from wbc_jax.models.summary import count_parameters
from wbc_jax.train.freeze import partition

# These programs are small and run once: optimising them would take most of the time.
compiled = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def images(batch: int = 4, size: int = 32, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=(batch, size, size, 3)), jnp.float32)


def init_shapes(model: Any, size: int = 64) -> Any:
    return jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), images(size=size))


def small(name: str, num_classes: int | None = 3, **fields: Any) -> tuple[Any, Any]:
    model = create_model(name, num_classes=num_classes, **{**SMALL[name], **fields})
    size = family_of(name).size_px
    init = compiled(lambda key: init_variables(model, key, images(size=size)))
    return model, init(jax.random.key(1))


def test_the_table_is_complete() -> None:
    assert set(NETWORKS) == set(list_models())
    assert {family for family, _, _ in NETWORKS.values()} == set(FAMILIES)
    assert all(family.small for family in FAMILIES.values())


@pytest.mark.parametrize("name", NETWORKS)
def test_total_of_parameters(name: str) -> None:
    _, classes, total = NETWORKS[name]
    variables = init_shapes(create_model(name, num_classes=classes), size=224)
    assert count_parameters(variables["params"]) == total


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_endpoints_and_head(name: str) -> None:
    """Shapes only, at full width: training and evaluation alike, with another head than the ImageNet one."""
    family = family_of(name)
    size = max(64, family.size_px)
    fields = family.shallow if "tiny" not in name else {}
    model = create_model(name, num_classes=7, dtype=jnp.bfloat16, **fields)
    variables = init_shapes(model, size)
    assert set(variables) == ({"params", "batch_stats"} if family.normed else {"params"})
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    logits, endpoints = jax.eval_shape(lambda v: model.apply(v, images(size=size), train=False), variables)
    assert (logits.shape, logits.dtype) == ((4, 7), jnp.float32)
    maps = {n: e for n, e in endpoints.items() if e.ndim == 4 and n != "spatial_gate"}
    vectors = {n: e for n, e in endpoints.items() if n not in maps}
    assert {e.dtype for e in maps.values()} == {jnp.dtype("bfloat16")}
    assert {e.dtype for e in vectors.values()} == {jnp.dtype("float32")}
    assert family.vectors <= set(vectors)
    assert family.maps <= set(maps)

    def train(variables: Any) -> Any:
        rngs = {"dropout": jax.random.key(0)}
        return model.apply(variables, images(size=size), train=True, mutable=["batch_stats"], rngs=rngs)

    (logits, _), updated = jax.eval_shape(train, variables)
    before, after = (tree.get("batch_stats", {}) for tree in (variables, updated))
    assert jax.tree.structure(before) == jax.tree.structure(after)

    other = init_shapes(create_model(name, num_classes=3, **fields), size)
    leaves, others = (traverse_util.flatten_dict(v["params"], sep="/") for v in (variables, other))
    changed = {path for path in leaves if leaves[path].shape != others[path].shape}
    assert changed == {f"{family.head}/kernel", f"{family.head}/bias"}
    assert leaves.keys() == others.keys()


class Computed(NamedTuple):
    """What a small network gives."""

    variables: Any
    gradients: Any
    logits: jax.Array
    logits_bf16: jax.Array
    frozen_statistics: Any


@pytest.fixture(scope="module", params=SMALL)
def computed(request: pytest.FixtureRequest) -> tuple[str, Computed]:
    name = request.param
    model, variables = small(name)
    narrow = create_model(name, num_classes=3, **SMALL[name], dtype=jnp.bfloat16)
    batch = images(size=family_of(name).size_px)

    def train(params: Any, **options: Any) -> Any:
        return model.apply(
            {**variables, "params": params},
            batch,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(2)},
            **options,
        )

    def loss(params: Any) -> jax.Array:
        (logits, endpoints), _ = train(params)
        class_loss = -jax.nn.log_softmax(logits)[jnp.arange(4), jnp.arange(4) % 3].mean()
        if "attribute_logits" not in endpoints:
            return class_loss
        return class_loss + jnp.square(endpoints["attribute_logits"] - 1.0).mean()

    def evaluate(model: Any, variables: Any) -> jax.Array:
        return model.apply(variables, batch, train=False)[0]

    def statistics(params: Any) -> Any:
        return train(params, use_running_average=True)[1].get("batch_stats", {})

    return name, Computed(
        variables,
        compiled(jax.grad(loss))(variables["params"]),
        compiled(functools.partial(evaluate, model))(variables),
        compiled(functools.partial(evaluate, narrow))(variables),
        compiled(statistics)(variables["params"]),
    )


def test_every_parameter_learns(computed: tuple[str, Computed]) -> None:
    """Gradients are finite and no leaf is left out, under jit, with dropout and batch statistics."""
    _, result = computed
    for path, leaf in traverse_util.flatten_dict(result.gradients, sep="/").items():
        assert leaf.dtype == jnp.float32, path
        assert np.isfinite(leaf).all(), path
        assert np.abs(leaf).max() > 0.0, path


def test_bfloat16_answers_nearly_alike(computed: tuple[str, Computed]) -> None:
    """Eight bits of mantissa through a few layers: within a tenth of the logits' size, and not the same."""
    _, result = computed
    assert result.logits_bf16.dtype == jnp.float32
    size = np.abs(result.logits).max()
    difference = np.abs(result.logits_bf16 - result.logits).max()
    assert 0.0 < difference < 0.1 * max(1.0, float(size))


def test_frozen_norms_and_layers_stay(computed: tuple[str, Computed]) -> None:
    """Statistics do not move in a training pass with `use_running_average`; all but the head can be frozen."""
    name, result = computed
    before = result.variables.get("batch_stats", {})
    jax.tree.map(np.testing.assert_array_equal, before, result.frozen_statistics)
    params, head = result.variables["params"], family_of(name).head
    trainable, frozen = partition(params, tuple(part for part in params if part != head))
    assert set(trainable) == {head}
    assert count_parameters(trainable) + count_parameters(frozen) == count_parameters(params)


@pytest.mark.parametrize("name", ["resnet_tiny", "densenet_tiny", "scam_tiny"])
def test_batch_norm_can_be_frozen_while_dropout_is_on(name: str) -> None:
    model, variables = small(name)

    @compiled
    def apply(key: jax.Array) -> Any:
        return model.apply(
            variables,
            images(),
            train=True,
            use_running_average=True,
            mutable=["batch_stats"],
            rngs={"dropout": key},
        )

    (one, endpoints), updated = apply(jax.random.key(0))
    (other, _), _ = apply(jax.random.key(1))
    for before, after in zip(
        jax.tree.leaves(variables["batch_stats"]), jax.tree.leaves(updated["batch_stats"]), strict=True
    ):
        np.testing.assert_array_equal(before, after)
    evaluated, expected = compiled(lambda: model.apply(variables, images(), train=False))()
    np.testing.assert_allclose(endpoints["pooled"], expected["pooled"], atol=1e-5)
    if name == "scam_tiny":
        assert np.abs(one - other).max() > 1e-3
    else:
        np.testing.assert_allclose(one, evaluated, atol=1e-5)


def test_shared_moments_are_those_each_layer_would_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    model, variables = small("densenet_tiny", num_classes=None)

    def train() -> Any:
        def score(params: Any) -> Any:
            tree = {**variables, "params": params}
            endpoints, updated = model.apply(tree, images(), train=True, mutable=["batch_stats"])
            weights = jnp.asarray(
                np.random.default_rng(3).normal(size=endpoints["stage2"].shape), jnp.float32
            )
            return (endpoints["stage2"] * weights).sum(), (endpoints["stage2"], updated["batch_stats"])

        return compiled(jax.grad(score, has_aux=True))(variables["params"])

    shared = train()
    monkeypatch.setattr(DenseNet, "_moments", lambda self, x, reader: None)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4), shared, train())


def test_densenet_over_a_pmap_axis_equals_the_whole_batch() -> None:
    model, variables = small("densenet_tiny")
    split = create_model("densenet_tiny", num_classes=3, bn_axis_name="batch", **SMALL["densenet_tiny"])
    x = images(batch=6)
    whole, updated = compiled(lambda: model.apply(variables, x, train=True, mutable=["batch_stats"]))()

    def apply(x: jax.Array) -> Any:
        return split.apply(variables, x, train=True, mutable=["batch_stats"])

    parts, updated_parts = compiled(jax.vmap(apply, axis_name="batch"))(x.reshape(3, 2, *x.shape[1:]))
    np.testing.assert_allclose(parts[0].reshape(6, 3), whole[0], atol=1e-4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a[0], b, rtol=1e-3, atol=1e-5), updated_parts, updated
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"branches": "resnet"},
        {"branches": "densenet"},
        {"fusion": "concat"},
        {"cut": "14"},
        {"attention": "none"},
        {"attention": "eca", "dropout_rate": 0.0},
    ],
    ids=str,
)
def test_scam_options(fields: dict[str, Any]) -> None:
    model = create_model("scam_tiny", num_classes=3, **fields)
    variables = init_shapes(model)
    _, endpoints = jax.eval_shape(lambda v: model.apply(v, images(size=64), train=False), variables)
    branches = {"resnet", "densenet"} if "branches" not in fields else {fields["branches"]}
    assert {m for m in variables["params"] if m in ("resnet", "densenet")} == branches
    assert {e for e in endpoints if e in ("resnet", "densenet")} == branches
    channels = 256 if fields.get("fusion") == "concat" else 128
    assert {(*endpoints[branch].shape[:3], channels) for branch in branches} == {endpoints["fused"].shape}
    assert ("spatial_gate" in endpoints) == (fields.get("attention", "scam") == "scam")
    assert ("attention" in variables["params"]) == (fields.get("attention") != "none")


def test_single_branch_is_not_fused() -> None:
    model, variables = small("scam_tiny", branches="resnet", attention="none")
    _, endpoints = compiled(lambda: model.apply(variables, images(), train=False))()
    np.testing.assert_array_equal(endpoints["fused"], endpoints["project_resnet"])
    np.testing.assert_array_equal(endpoints["attended"], endpoints["fused"])


def test_tap_gives_the_derivative_with_respect_to_an_endpoint() -> None:
    model, variables = small("scam_tiny")
    plain, endpoints = compiled(lambda: model.apply(variables, images(), train=False))()
    tapped = ("attended", "resnet", "resnet/stage2", "densenet/block1", "pre_logits")

    def score(perturbation: jax.Array, endpoint: str) -> tuple[jax.Array, jax.Array]:
        variables_and_tap = {**variables, **tap_variables(endpoint, perturbation)}
        logits, _ = model.apply(variables_and_tap, images(), train=False)
        return logits[:, 1].sum(), logits

    @compiled
    def differentiate(zeros: dict[str, jax.Array]) -> Any:
        return {name: jax.grad(score, has_aux=True)(zeros[name], name) for name in tapped}

    results = differentiate({name: jnp.zeros_like(endpoints[name]) for name in tapped})
    for name, (gradient, logits) in results.items():
        np.testing.assert_allclose(logits, plain, atol=1e-6)
        assert (np.abs(gradient).reshape(4, -1).max(axis=1) > 0).all(), name
    kernel = variables["params"]["logits"]["kernel"]
    np.testing.assert_allclose(results["pre_logits"][0], np.tile(kernel[:, 1], (4, 1)), rtol=1e-6)


def test_trunks_of_different_strides_are_refused() -> None:
    model = create_model("scam", num_classes=5, resnet_name="resnet18", densenet_name="densenet_tiny")
    with pytest.raises(UsageError, match="resnet_tiny"):
        init_shapes(model)


def test_names_and_fields() -> None:
    assert {"scam", "scam_tiny", "resnet50", "resnet_tiny", "densenet121", "densenet_tiny"} <= set(NETWORKS)
    for name in NETWORKS:
        assert {"num_classes", "dtype", "bn_axis_name"} <= set(model_fields(name))
    paper = {"branches", "attention", "fusion", "cut", "dropout_rate"}
    assert paper <= set(model_fields("scam"))
    assert not paper & set(model_fields("resnet50"))


@pytest.mark.parametrize(
    ("name", "fields", "parts"),
    [
        ("resnet5", {}, ["'resnet5'", "did you mean 'resnet50'", "densenet121"]),
        ("scam", {"atention": "sam"}, ["'atention'", "did you mean 'attention'", "dropout_rate"]),
        ("scam", {"attention": "csm", "cut": "15"}, ["'csm'", "did you mean 'csam'", "'15'", "'14'"]),
        ("scam", {"num_classes": None}, ["no form without a head"]),
        ("resnet18", {"num_classes": 0}, ["num_classes=0"]),
    ],
    ids=str,
)
def test_wrong_requests_say_what_would_be_right(name: str, fields: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(UsageError) as refused:
        create_model(name, **{"num_classes": 5, **fields})
    assert [part for part in parts if part not in str(refused.value)] == []


def test_images_too_small_for_densenet_are_refused() -> None:
    model = create_model("densenet121", num_classes=5)
    with pytest.raises(UsageError, match="32 px"):
        jax.eval_shape(lambda: model.init(jax.random.key(0), images(size=24), train=False))


@pytest.mark.parametrize(("name", "least_px"), [("alexnet", 63), ("vgg16", 32), ("inception_v4", 75)])
def test_images_that_pooling_would_leave_nothing_of_are_refused(name: str, least_px: int) -> None:
    model = create_model(name, num_classes=5)
    with pytest.raises(UsageError, match=f"{least_px} px or more"):
        jax.eval_shape(lambda: model.init(jax.random.key(0), images(size=least_px - 1), train=False))
    logits, _ = jax.eval_shape(
        lambda: model.init_with_output(jax.random.key(0), images(size=least_px), train=False)[0]
    )
    assert logits.shape == (4, 5)


def test_models_need_no_data_or_file_library() -> None:
    """On a bare accelerator image only jax, flax and optax are there."""
    absent = ("grain", "tensorflow_datasets", "tensorflow", "array_record", "orbax", "tyro", "PIL", "torch",
              "matplotlib", "sklearn", "skimage", "safetensors")  # fmt: skip
    program = (
        f"import sys\nfor name in {absent}: sys.modules[name] = None\n"
        "import wbc_jax.models, wbc_jax.models.summary\n"
        "print(len(wbc_jax.models.list_models()))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout.strip()) == (0, str(len(NETWORKS))), run.stderr

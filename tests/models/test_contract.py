"""What every network promises: names, logits and endpoints, gradients, dtypes, a head that can be changed."""

from __future__ import annotations

import functools
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from wbc_jax.errors import UsageError
from wbc_jax.models import create_model, list_models, model_fields
from wbc_jax.models.densenet import DenseNet
from wbc_jax.models.endpoints import tap_variables

NETWORKS = list_models()
# One small network of each structure: basic and bottleneck blocks, both stems, both trunks, the composition.
SMALL: dict[str, dict[str, Any]] = {
    "resnet_tiny": {"width": 4},
    "resnet50": {"width": 4, "stage_sizes": (1, 2)},
    "densenet_tiny": {"width": 8, "growth": 4, "block_sizes": (2, 2)},
    "densenet121": {"width": 8, "growth": 4, "block_sizes": (2, 1)},
    "scam_tiny": {"projection_features": 32, "hidden_features": 16, "cut": "14"},
    "epsanet_tiny": {"stage_sizes": (1, 2)},
    "map_tiny": {"feature_units": 8},
    "vgg16": {"stage_sizes": (1, 2), "widths": (4, 8), "hidden_features": 16},
    "alexnet": {"widths": (4, 6, 8, 6, 6), "hidden_features": 16},
    "mobilenet_v2": {"stages": ((1, 8, 1, 1), (2, 8, 2, 2)), "stem_features": 8, "widened_features": 16},
    "shufflenet_v2_x1_0": {
        "stage_sizes": (2, 1),
        "widths": (8, 12),
        "stem_features": 8,
        "widened_features": 16,
    },
    "vit_b_16": {"depth": 2, "features": 8, "heads": 2, "mlp_features": 16, "image_size_px": 48},
    "amnet_tiny": {},
    "daffnet_tiny": {"semantic_units": 8, "map_gradient": True, "freeze_map": False},
}
# Depth repeats the same blocks: one of each is enough where only the contract is looked at.
SHALLOW: dict[str, dict[str, Any]] = {
    "resnet": {"stage_sizes": (1, 1, 1, 1)},
    "densenet": {"block_sizes": (1, 1, 1, 1)},
    "scam": {"resnet_name": "resnet_tiny", "densenet_name": "densenet_tiny"},
    "resnext": {"stage_sizes": (1, 1, 1, 1)},
    "se_resne": {"stage_sizes": (1, 1, 1, 1)},
    "amnet": {"trunk_name": "se_resnext_tiny"},
    "epsanet": {"stage_sizes": (1, 1, 1, 1)},
    "map": {"trunk_name": "resnet_tiny"},
    "vgg": {"stage_sizes": (1, 1, 1, 1, 1), "hidden_features": 64},
    "alexnet": {"hidden_features": 64},
    "mobilenet_v2": {"stages": ((1, 16, 1, 1), (6, 24, 2, 2))},
    "shufflenet_v2": {"stage_sizes": (2, 1, 1)},
    "vit": {"depth": 2, "image_size_px": 64},
    "daffnet": {"semantic_name": "epsanet_tiny", "map_name": "map_tiny"},
}
HEADS = {
    "resnet": "fc",
    "resnext": "fc",
    "se_resne": "fc",
    "amnet": "fc",
    "epsanet": "fc",
    "densenet": "classifier",
    "scam": "logits",
    "map": "logits",
    "vgg": "classifier",
    "alexnet": "classifier",
    "mobilenet_v2": "classifier",
    "shufflenet_v2": "fc",
    "vit": "classifier",
    "daffnet": "logits",
}
# Endpoints that a network of each kind has at least, maps and vectors.
MAPS = {
    "resnet": {"stem", "stage1", "stage4"},
    "resnext": {"stem", "stage1", "stage4"},
    "se_resne": {"stem", "stage1", "stage4"},
    "amnet": {"trunk/stage4", "attention/se_fused", "attention/se_ge", "attended"},
    "epsanet": {"stem", "stage1", "stage4"},
    "densenet": {"stem", "block1", "transition1"},
    "scam": {"attended", "fused", "resnet", "densenet"},
    "map": {"trunk/stem", "trunk/stage4"},
    "vgg": {"stage1", "stage5"},
    "alexnet": {"stem", "stage2", "stage5"},
    "mobilenet_v2": {"stem", "stage1", "stage2", "widened"},
    "shufflenet_v2": {"stem", "stage2", "stage4", "conv5"},
    "vit": {"stem", "block1", "block2"},
    "daffnet": {"semantic/stage4", "map/trunk/stage4"},
}
WITHOUT_NORM = ("alexnet", "vgg", "vit")
"""Networks without BatchNorm, and so without statistics."""
VECTORS = {
    "map": {"features", "attribute_logits", "pre_logits"},
    "daffnet": {"semantic", "attribute_logits", "morphology_code", "pre_logits"},
}


# These programs are small and run once: optimising them would take most of the time.
compiled = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def images(batch: int = 4, size: int = 32, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=(batch, size, size, 3)), jnp.float32)


def init_shapes(model: Any) -> Any:
    return jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), images(size=64))


def small(name: str, num_classes: int | None = 3, **fields: Any) -> tuple[Any, Any]:
    model = create_model(name, num_classes=num_classes, **{**SMALL[name], **fields})
    init = compiled(lambda key: model.init(key, images(size=small_size(name)), train=False))
    return model, init(jax.random.key(1))


def small_size(name: str) -> int:
    return 64 if name == "alexnet" else 32


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_endpoints_and_head(name: str) -> None:
    """Shapes only, at full width: training and evaluation alike, with another head than the ImageNet one."""
    kind = next(kind for kind in HEADS if name.startswith(kind))
    fields = SHALLOW[kind] if "tiny" not in name else {}
    model = create_model(name, num_classes=7, dtype=jnp.bfloat16, **fields)
    variables = init_shapes(model)
    assert set(variables) == ({"params"} if kind in WITHOUT_NORM else {"params", "batch_stats"})
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    logits, endpoints = jax.eval_shape(lambda v: model.apply(v, images(size=64), train=False), variables)
    assert (logits.shape, logits.dtype) == ((4, 7), jnp.float32)
    maps = {n: e for n, e in endpoints.items() if e.ndim == 4 and n != "spatial_gate"}
    vectors = {n: e for n, e in endpoints.items() if n not in maps}
    assert {e.dtype for e in maps.values()} == {jnp.dtype("bfloat16")}
    assert {e.dtype for e in vectors.values()} == {jnp.dtype("float32")}
    assert VECTORS.get(kind, {"pooled", "pre_logits"}) <= set(vectors)
    assert MAPS[kind] <= set(maps)

    def train(variables: Any) -> Any:
        rngs = {"dropout": jax.random.key(0)}
        return model.apply(variables, images(size=64), train=True, mutable=["batch_stats"], rngs=rngs)

    (logits, _), updated = jax.eval_shape(train, variables)
    before, after = (tree.get("batch_stats", {}) for tree in (variables, updated))
    assert jax.tree.structure(before) == jax.tree.structure(after)

    other = init_shapes(create_model(name, num_classes=3, **fields))
    leaves, others = (traverse_util.flatten_dict(v["params"], sep="/") for v in (variables, other))
    changed = {path for path in leaves if leaves[path].shape != others[path].shape}
    assert changed == {f"{HEADS[kind]}/kernel", f"{HEADS[kind]}/bias"}
    assert leaves.keys() == others.keys()


@pytest.mark.parametrize(
    ("name", "dtype"),
    [(name, jnp.bfloat16 if name in ("resnet50", "densenet_tiny") else jnp.float32) for name in SMALL],
)
def test_every_parameter_learns(name: str, dtype: Any) -> None:
    """Gradients are finite and no leaf is left out, under jit, with dropout and batch statistics."""
    model, variables = small(name, dtype=dtype)

    @compiled
    @jax.grad
    def differentiate(params: Any) -> jax.Array:
        (logits, endpoints), _ = model.apply(
            {**variables, "params": params},
            images(size=small_size(name)),
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(2)},
        )
        class_loss = -jax.nn.log_softmax(logits)[jnp.arange(4), jnp.arange(4) % 3].mean()
        if "attribute_logits" not in endpoints:
            return class_loss
        return class_loss + jnp.square(endpoints["attribute_logits"] - 1.0).mean()

    for path, leaf in traverse_util.flatten_dict(differentiate(variables["params"]), sep="/").items():
        assert leaf.dtype == jnp.float32, path
        assert np.isfinite(leaf).all(), path
        assert np.abs(leaf).max() > 0.0, path


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


@pytest.mark.parametrize(("name", "least_px"), [("alexnet", 63), ("vgg16", 32)])
def test_images_that_pooling_would_leave_nothing_of_are_refused(name: str, least_px: int) -> None:
    model = create_model(name, num_classes=5, hidden_features=8)
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

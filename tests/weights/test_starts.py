"""Published weights in the networks that are derived from, or built around, the network they belong to."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file
from state_dicts import counting_state, without_counters

from wbc_jax.errors import UsageError, WeightsError
from wbc_jax.models import create_model
from wbc_jax.models.daffnet import SEMANTIC_TRUNKS
from wbc_jax.models.initialisers import init_variables
from wbc_jax.models.zoo.vgg import VGG
from wbc_jax.weights import convert_torchvision, load_pretrained_into, save_variables
from wbc_jax.weights.merge import flatten


@functools.cache
def zeros_of(name: str, *, image_size_px: int = 64, **fields: Any) -> dict[str, Any]:
    """The network's variables, all zero, without computing an initialisation."""
    model = create_model(name, **fields)
    images = jax.ShapeDtypeStruct((1, image_size_px, image_size_px, 3), jnp.float32)
    shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), images)
    return jax.tree.map(lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape), dict(shapes))


@pytest.fixture(scope="module")
def resnet50(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pretrained") / "resnet50.safetensors"
    save_file(without_counters(counting_state("resnet50")), path)
    return path


@pytest.fixture(scope="module")
def pretrained(resnet50: Path) -> dict[str, Any]:
    return flatten(convert_torchvision("resnet50", resnet50))


def differing(loaded: Any, pretrained: dict[str, Any], prefix: str) -> set[str]:
    """Paths of the pretrained network whose values are not those under `prefix`."""
    flat = flatten(loaded)
    names = {path: path.replace("/", f"/{prefix}/", 1) if prefix else path for path in pretrained}
    return {p for p, n in names.items() if n not in flat or not np.array_equal(flat[n], pretrained[p])}


def is_second_convolution(path: str) -> bool:
    return path.endswith("/conv2/kernel")


def test_epsanet_takes_all_but_the_sixteen_convolutions_that_it_replaces(
    resnet50: Path, pretrained: dict[str, Any]
) -> None:
    loaded, report = load_pretrained_into(zeros_of("epsanet50", num_classes=1000), resnet50, "epsanet50")
    absent = differing(loaded, pretrained, "")
    assert len(absent) == 16
    assert all(map(is_second_convolution, absent))
    assert set(report.unused) == absent
    assert all("/psa/" in path and not np.any(flatten(loaded)[path]) for path in report.initialised)
    assert len(report.copied) == len(pretrained) - 16
    assert "initial values stay in 16 psa; 16 not needed here" in report.summary()


def test_attribute_predictor_keeps_the_thousand_wide_layer(
    resnet50: Path, pretrained: dict[str, Any]
) -> None:
    loaded, report = load_pretrained_into(zeros_of("map_resnet50", num_classes=5), resnet50, "map_resnet50")
    assert differing(loaded, pretrained, "trunk") == set()
    assert len(report.copied) == len(pretrained)
    assert not np.any(loaded["params"]["attribute_heads"]["kernel"])


@pytest.mark.parametrize("own_form", [False, True])
def test_one_file_fills_both_branches_of_daffnet(
    resnet50: Path, pretrained: dict[str, Any], tmp_path: Path, own_form: bool
) -> None:
    path = resnet50
    if own_form:
        path = tmp_path / "converted.safetensors"
        save_variables(path, convert_torchvision("resnet50", resnet50))
    loaded, report = load_pretrained_into(zeros_of("daffnet", num_classes=5), path, "daffnet")
    assert differing(loaded, pretrained, "map/trunk") == set()
    assert all(map(is_second_convolution, differing(loaded, pretrained, "semantic")))
    assert np.any(loaded["params"]["semantic"]["fc"]["kernel"])
    assert len(report.copied) == 2 * len(pretrained) - 16
    assert "16 psa, 16 spatial_gate" in report.summary()


def test_each_branch_of_daffnet_alone(resnet50: Path, pretrained: dict[str, Any]) -> None:
    zeros = zeros_of("daffnet", num_classes=5, semantic_name="resnet50", spatial_gate="none")
    semantic, _ = load_pretrained_into(zeros, resnet50, "resnet50", "semantic")
    assert differing(semantic, pretrained, "semantic") == set()
    assert not np.any(semantic["params"]["map"]["trunk"]["conv1"]["kernel"])
    predictor, _ = load_pretrained_into(zeros, resnet50, "resnet50", "map")
    assert differing(predictor, pretrained, "map/trunk") == set()
    assert not np.any(predictor["params"]["semantic"]["conv1"]["kernel"])


@pytest.mark.parametrize("arch", ["vgg19", "vit_b_16"])
def test_backbones_of_the_comparison_take_torchvisions_weights(tmp_path: Path, arch: str) -> None:
    path = tmp_path / f"{arch}.safetensors"
    save_file(without_counters(counting_state(arch)), path)
    zeros = zeros_of("daffnet", image_size_px=224, num_classes=5, semantic_name=arch, spatial_gate="none")
    loaded, report = load_pretrained_into(zeros, path, arch, "semantic")
    assert differing(loaded, flatten(convert_torchvision(arch, path)), "semantic") == set()
    assert report.reinitialised == report.initialised == report.unused == ()


def test_se_resnext_fills_the_trunk_of_amnet(tmp_path: Path) -> None:
    trunk = zeros_of("se_resnext50_32x4d", num_classes=1000)
    ones = jax.tree.map(np.ones_like, trunk)
    save_variables(tmp_path / "trunk.safetensors", ones)
    loaded, report = load_pretrained_into(
        zeros_of("amnet", num_classes=4), tmp_path / "trunk.safetensors", "amnet"
    )
    assert all(np.all(leaf) for leaf in jax.tree.leaves(loaded["params"]["trunk"]))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(loaded["params"]["attention"]))
    assert set(report.unused) == {"params/fc/kernel", "params/fc/bias"}


def test_folded_predictor_is_filled_with_folded_weights(resnet50: Path) -> None:
    zeros = zeros_of("map_resnet50", num_classes=5, norm="folded")
    state = counting_state("resnet50")
    loaded, _ = load_pretrained_into(zeros, resnet50, "map_resnet50")
    factor = state["bn1.weight"] / np.sqrt(state["bn1.running_var"] + 1e-5)
    trunk = loaded["params"]["trunk"]["conv1"]
    expected = state["conv1.weight"].transpose(2, 3, 1, 0) * factor
    np.testing.assert_allclose(trunk["kernel"], expected, rtol=1e-5)
    np.testing.assert_allclose(
        trunk["bias"], state["bn1.bias"] - state["bn1.running_mean"] * factor, rtol=1e-5
    )


def test_half_an_epsanet_is_no_start(tmp_path: Path) -> None:
    """Attention that the file has in one block only is damage, not another kind of network."""
    variables = zeros_of("epsanet_tiny", num_classes=5)
    flat = {name: np.array(leaf) for name, leaf in flatten(variables).items()}
    kept = {name: leaf for name, leaf in flat.items() if not name.startswith("params/layer1_0/psa")}
    save_file(kept, tmp_path / "half.safetensors")
    with pytest.raises(WeightsError, match="missing"):
        load_pretrained_into(variables, tmp_path / "half.safetensors", "epsanet_tiny")


def test_layers_of_another_network_are_still_refused(resnet50: Path) -> None:
    zeros = zeros_of("daffnet", num_classes=5, semantic_name="resnet18", spatial_gate="none")
    with pytest.raises(WeightsError, match="do not fit"):
        load_pretrained_into(zeros, resnet50, "daffnet")


def test_semantic_branch_without_residual_blocks_runs_and_takes_no_gate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small = {"stage_sizes": (1, 1, 1, 1, 1), "widths": (4, 4, 8, 8, 8), "hidden_features": 16}
    monkeypatch.setitem(SEMANTIC_TRUNKS, "vgg_small", (VGG, small))
    images = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))
    fields: dict[str, Any] = {"num_classes": 5, "semantic_name": "vgg_small", "semantic_units": 8}
    model = create_model("daffnet_tiny", **fields, spatial_gate="none")
    variables = jax.jit(lambda key: init_variables(model, key, images))(jax.random.key(1))
    logits, endpoints = jax.jit(lambda variables: model.apply(variables, images, train=False))(variables)
    assert logits.shape == (2, 5)
    assert endpoints["pre_logits"].shape == (2, 8 + 128)
    assert endpoints["semantic/stage5"].shape == (2, 2, 2, 8)
    with pytest.raises(UsageError, match="no residual blocks"):
        zeros_of("daffnet_tiny", **fields)

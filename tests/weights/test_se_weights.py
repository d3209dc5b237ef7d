"""Weights of SE networks as timm, Cadene and Paddle name them, and WBC-AMNet's trunk from each."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from wbc_jax.commands.convert import convert_file
from wbc_jax.commands.weights import load_weights
from wbc_jax.config import ModelConfig
from wbc_jax.errors import WeightsError
from wbc_jax.models import create_model
from wbc_jax.weights import convert_torchvision, save_variables
from wbc_jax.weights.merge import flatten
from wbc_jax.weights.naming import leaves

State = dict[str, np.ndarray]
DEPTHS = (3, 4, 6, 3)


def timm_state(arch: str, num_classes: int = 1000) -> State:
    """Every array of one value, its own; but for gates and head, whose layouts differ between publishers."""
    state = {}
    for index, leaf in enumerate(leaves(arch, num_classes)):
        value = np.full((1,), index / 7, np.float32)
        if leaf.torch_name.startswith("fc.") or ".se." in leaf.torch_name:
            value = value + np.arange(np.prod(leaf.shape), dtype=np.float32).reshape(leaf.torch_shape) / 1e5
        state[leaf.torch_name] = np.broadcast_to(value, leaf.torch_shape)
    return state


def cadene_state(timm: State) -> State:
    """`layer0` around the stem, `se_module` for `se`, `last_linear` for `fc`, and torch's counters."""
    state: State = {}
    for name, array in timm.items():
        if name.startswith(("conv1.", "bn1.")):
            name = f"layer0.{name}"
        state[name.replace(".se.", ".se_module.").replace("fc.weight", "last_linear.weight").replace(
            "fc.bias", "last_linear.bias"
        )] = array  # fmt: skip
    state["layer0.bn1.num_batches_tracked"] = np.asarray(3, np.int64)
    return state


def paddle_state(timm: State) -> State:
    """Written down block by block: stages from 2, blocks from 1, linear layers (in, out), no 1x1 axes."""
    state: State = {}

    def unit(theirs: str, conv: str, norm: str) -> None:
        state[f"{theirs}_weights"] = timm[f"{conv}.weight"]
        parts = (
            ("scale", "weight"),
            ("offset", "bias"),
            ("mean", "running_mean"),
            ("variance", "running_var"),
        )
        for part, ours in parts:
            state[f"{theirs}_bn_{part}"] = timm[f"{norm}.{ours}"]

    unit("conv1", "conv1", "bn1")
    for stage, depth in enumerate(DEPTHS, start=1):
        for index in range(depth):
            block, name = f"layer{stage}.{index}", f"{stage + 1}_{index + 1}"
            for layer in (1, 2, 3):
                unit(f"conv{name}_x{layer}", f"{block}.conv{layer}", f"{block}.bn{layer}")
            if index == 0:
                unit(f"conv{name}_prj", f"{block}.downsample.0", f"{block}.downsample.1")
            for gate, fc in (("sqz", "fc1"), ("exc", "fc2")):
                state[f"fc{name}_{gate}_weights"] = timm[f"{block}.se.{fc}.weight"][:, :, 0, 0].T
                state[f"fc{name}_{gate}_offset"] = timm[f"{block}.se.{fc}.bias"]
    state["fc6_weights"], state["fc6_offset"] = timm["fc.weight"].T, timm["fc.bias"]
    return state


@pytest.fixture(scope="module")
def timm() -> State:
    return timm_state("se_resnext50_32x4d")


@pytest.mark.parametrize("publisher", [cadene_state, paddle_state])
def test_every_publishers_file_gives_the_same_arrays(timm: State, publisher: object) -> None:
    assert callable(publisher)
    theirs = publisher(timm)
    assert len(set(theirs) & set(timm)) < len(timm)
    expected = flatten(convert_torchvision("se_resnext50_32x4d", timm))
    found = flatten(convert_torchvision("se_resnext50_32x4d", theirs))
    assert found.keys() == expected.keys()
    for path, array in expected.items():
        np.testing.assert_array_equal(found[path], array, err_msg=path)
    squeeze = expected["params/layer1_0/se/squeeze/kernel"]
    assert squeeze.shape == (256, 16)
    assert squeeze[200, 3] == timm["layer1.0.se.fc1.weight"][3, 200, 0, 0]


def test_convert_says_where_cadenes_network_differs(timm: State, tmp_path: Path) -> None:
    source = tmp_path / "cadene.safetensors"
    save_file({name: np.ascontiguousarray(array) for name, array in cadene_state(timm).items()}, source)
    report = convert_file("se_resnext50_32x4d", source, tmp_path / "ours.safetensors", 4)
    assert (report.parameters, report.num_classes) == (25_519_092, 4)
    assert "one pixel aside" in str(report)


def test_weights_with_the_stride_elsewhere_are_refused() -> None:
    """Legacy SE-ResNet50 strides in the first 1x1 convolution: every shape fits, every map would be another."""
    state = timm_state("se_resnet50")
    assert "layer4_2" in convert_torchvision("se_resnet50", state)["params"]
    with pytest.raises(WeightsError, match=r"(?s)first 1x1 convolution.*timm's seresnet50"):
        convert_torchvision("se_resnet50", cadene_state(state))


def test_amnet_starts_from_its_trunk_or_from_a_whole_one(timm: State, tmp_path: Path) -> None:
    model = create_model("amnet", num_classes=4)
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), images)
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    trunk_file, whole_file = tmp_path / "timm.safetensors", tmp_path / "whole.safetensors"
    save_file({name: np.ascontiguousarray(array) for name, array in timm.items()}, trunk_file)
    filled, (line,) = load_weights(ModelConfig(name="amnet", pretrained=str(trunk_file)), zeros)
    assert "not needed here" in line  # the ImageNet head
    trunk = flatten(convert_torchvision("se_resnext50_32x4d", timm))
    for path, leaf in flatten(filled).items():
        collection, _, rest = path.partition("/")
        expected = trunk[f"{collection}/{rest.removeprefix('trunk/')}"] if rest.startswith("trunk/") else 0.0
        np.testing.assert_array_equal(leaf, expected, err_msg=path)
    save_variables(whole_file, jax.tree.map(lambda leaf: leaf + 1.0, zeros))
    filled, _ = load_weights(ModelConfig(name="amnet", pretrained=str(whole_file)), zeros)
    assert all((leaf == 1.0).all() for leaf in jax.tree.leaves(filled))

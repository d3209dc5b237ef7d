"""The rename tables against the names, shapes and published digests that torchvision itself has."""

from __future__ import annotations

import numpy as np
import pytest
from state_dicts import counting_state, torchvision_shapes, without_counters
from torch_reference import torchvision_models

from wbc_jax.errors import UsageError, WeightsError
from wbc_jax.weights import convert_torchvision, to_torchvision
from wbc_jax.weights.download import PUBLISHED
from wbc_jax.weights.naming import TORCHVISION_ARCHITECTURES, canonical_torch_name, leaves, parameter_count


@pytest.mark.parametrize("arch", TORCHVISION_ARCHITECTURES)
def test_tables_list_torchvisions_names_and_shapes(arch: str) -> None:
    theirs = {name: shape for name, shape in torchvision_shapes(arch).items() if "num_batches" not in name}
    ours = {leaf.torch_name: leaf.torch_shape for leaf in leaves(arch)}
    assert ours == theirs
    assert list(ours) == list(theirs)
    assert len({leaf.path for leaf in leaves(arch)}) == len(ours)


@pytest.mark.parametrize(("arch", "total"), [("resnet50", 25_557_032), ("densenet121", 7_978_856)])
def test_published_parameter_totals(arch: str, total: int) -> None:
    assert parameter_count(arch) == total


@pytest.mark.parametrize("arch", TORCHVISION_ARCHITECTURES)
def test_round_trip_is_bit_equal(arch: str) -> None:
    state = counting_state(arch, num_classes=5)
    back = to_torchvision(arch, convert_torchvision(arch, state))
    expected = without_counters(state)
    assert back.keys() == expected.keys()
    for name, array in expected.items():
        assert back[name].dtype == np.float32
        assert back[name].tobytes() == array.tobytes(), name


def test_layouts_by_single_elements() -> None:
    state = counting_state("resnet18", num_classes=5)
    params = convert_torchvision("resnet18", state)["params"]
    conv = state["layer2.0.conv1.weight"]  # (out, in, height, width)
    assert params["layer2_0"]["conv1"]["kernel"].shape == (3, 3, 64, 128)
    assert params["layer2_0"]["conv1"]["kernel"][0, 2, 5, 100] == conv[100, 5, 0, 2]
    assert params["fc"]["kernel"][17, 3] == state["fc.weight"][3, 17]
    assert params["layer2_0"]["downsample_bn"]["scale"][9] == state["layer2.0.downsample.1.weight"][9]


def test_order_of_the_state_dict_does_not_matter() -> None:
    state = counting_state("resnet18")
    shuffled = dict(sorted(state.items(), key=lambda item: item[0][::-1]))
    left, right = convert_torchvision("resnet18", state), convert_torchvision("resnet18", shuffled)
    back_left, back_right = to_torchvision("resnet18", left), to_torchvision("resnet18", right)
    assert all(np.array_equal(back_left[name], back_right[name]) for name in back_left)


def test_old_densenet_spelling_and_wrappers_give_the_same_arrays() -> None:
    state = counting_state("densenet121")
    old = {}
    for name, array in state.items():
        for part in ("norm1", "norm2", "conv1", "conv2"):
            name = name.replace(f".{part}.", f".{part[:-1]}.{part[-1]}.")
        old[f"module.{name}"] = array
    assert "module.features.denseblock1.denselayer1.norm.1.weight" in old
    assert "module.features.norm0.weight" in old
    back = to_torchvision("densenet121", convert_torchvision("densenet121", old))
    assert all(np.array_equal(back[name], array) for name, array in without_counters(state).items())


def test_transition_names_are_left_alone() -> None:
    assert canonical_torch_name("features.transition1.norm.weight") == "features.transition1.norm.weight"
    assert canonical_torch_name("module._orig_mod.fc.bias") == "fc.bias"
    assert canonical_torch_name("bn1.num_batches_tracked") is None


def test_state_dict_without_head_gives_a_trunk() -> None:
    state = {name: array for name, array in counting_state("resnet18").items() if not name.startswith("fc.")}
    variables = convert_torchvision("resnet18", state)
    assert "fc" not in variables["params"]
    assert to_torchvision("resnet18", variables).keys() == without_counters(state).keys()


def test_wrong_architecture_is_named() -> None:
    with pytest.raises(WeightsError) as caught:
        convert_torchvision("resnet34", counting_state("resnet18"))
    message = str(caught.value)
    assert "missing" in message
    assert "layer1.2.conv1.weight" in message
    assert "these are the weights of resnet18" in message


def test_every_kind_of_misfit_is_listed_at_once() -> None:
    state = counting_state("resnet18")
    del state["layer1.0.bn1.running_var"]
    state["stranger.weight"] = np.zeros((2,), np.float32)
    state["conv1.weight"] = np.zeros((64, 1, 7, 7), np.float32)
    state["module.bn1.weight"] = state["bn1.weight"]
    with pytest.raises(WeightsError) as caught:
        convert_torchvision("resnet18", state)
    message = str(caught.value)
    for expected in (
        "1 missing:\n  layer1.0.bn1.running_var",
        "1 unexpected:\n  stranger.weight",
        "conv1.weight: found (64, 1, 7, 7), expected (64, 3, 7, 7)",
        "1 given twice:\n  bn1.weight",
    ):
        assert expected in message


def test_bias_without_weight_is_no_head() -> None:
    state = counting_state("resnet18")
    del state["fc.weight"]
    with pytest.raises(WeightsError, match=r"fc\.bias"):
        convert_torchvision("resnet18", state)


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_non_finite_weights_are_refused(bad: float) -> None:
    state = counting_state("resnet18")
    state["bn1.weight"] = state["bn1.weight"].copy()
    state["bn1.weight"][3] = bad
    with pytest.raises(WeightsError, match="params/bn1/scale"):
        convert_torchvision("resnet18", state)


def test_quantised_weights_are_refused() -> None:
    state = counting_state("resnet18")
    state["conv1.weight"] = state["conv1.weight"].astype(np.int8)
    with pytest.raises(WeightsError, match="params/conv1/kernel: int8"):
        convert_torchvision("resnet18", state)


def test_unknown_architecture() -> None:
    with pytest.raises(UsageError, match="densenet201"):
        convert_torchvision("lenet", {})
    with pytest.raises(UsageError, match="resnet18"):
        to_torchvision("scam", {})


def test_published_files_are_those_of_the_installed_torchvision() -> None:
    models = torchvision_models()
    for (arch, release), published in PUBLISHED.items():
        weights = getattr(models.get_model_weights(arch), f"IMAGENET1K_{release.upper()}")
        assert published.url == weights.url
        assert published.top1_percent == weights.meta["_metrics"]["ImageNet-1K"]["acc@1"]
        assert len(published.sha256_prefix) == 8

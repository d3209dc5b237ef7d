"""Pretrained arrays into a network: what is copied, what is left fresh, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file
from state_dicts import counting_state, without_counters

from wbc_jax.errors import UsageError, WeightsError
from wbc_jax.weights import (
    convert_torchvision,
    load_pretrained_into,
    merge_pretrained,
    save_variables,
    to_torchvision,
)
from wbc_jax.weights.merge import branch, flatten, unflatten
from wbc_jax.weights.naming import leaves


def fresh(arch: str, num_classes: int | None, prefix: str = "") -> dict[str, Any]:
    """Variables of a trunk, all zero, so that every copied value shows."""
    flat = {}
    for leaf in leaves(arch, num_classes):
        collection, _, rest = leaf.path.partition("/")
        flat[f"{collection}/{prefix}{rest}"] = np.zeros(leaf.shape, np.float32)
    return unflatten(flat)


@pytest.fixture(scope="module")
def pretrained() -> dict[str, Any]:
    return convert_torchvision("resnet18", counting_state("resnet18", num_classes=10))


def test_equal_head_is_copied_with_everything_else(pretrained: dict[str, Any]) -> None:
    merged, report = merge_pretrained(fresh("resnet18", 10), pretrained)
    assert report.reinitialised == report.unused == ()
    assert len(report.copied) == len(leaves("resnet18", 10))
    assert all(np.array_equal(leaf, flatten(pretrained)[path]) for path, leaf in flatten(merged).items())


def test_head_of_other_width_is_left_fresh_as_a_whole(pretrained: dict[str, Any]) -> None:
    template = fresh("resnet18", 5)
    merged, report = merge_pretrained(template, pretrained)
    assert report.reinitialised == ("params/fc/kernel", "params/fc/bias")
    assert not np.any(merged["params"]["fc"]["kernel"])
    assert np.array_equal(merged["params"]["bn1"]["scale"], pretrained["params"]["bn1"]["scale"])
    assert not np.any(template["params"]["bn1"]["scale"])  # the argument is not modified
    assert "new head: params/fc/kernel" in report.summary()


def test_head_without_its_kernel_is_not_half_copied(pretrained: dict[str, Any]) -> None:
    flat = flatten(pretrained)
    del flat["params/fc/kernel"]
    merged, report = merge_pretrained(fresh("resnet18", 10), unflatten(flat))
    assert set(report.reinitialised) == {"params/fc/kernel", "params/fc/bias"}
    assert not np.any(merged["params"]["fc"]["bias"])
    assert "params/fc/bias" not in report.copied


def test_head_swap_can_be_forbidden(pretrained: dict[str, Any]) -> None:
    with pytest.raises(WeightsError, match=r"params/fc/kernel: found \(512, 10\), expected \(512, 5\)"):
        merge_pretrained(fresh("resnet18", 5), pretrained, swap_head=False)


def test_branch_of_a_larger_network(pretrained: dict[str, Any]) -> None:
    network = fresh("resnet18", None, prefix="resnet/")
    network["params"]["hidden"] = {"bias": np.full(3, 7, np.float32)}
    merged, report = merge_pretrained(network, pretrained, prefix="resnet")
    assert merged["params"]["hidden"]["bias"].tolist() == [7, 7, 7]
    assert np.array_equal(
        branch(merged, "resnet")["params"]["conv1"]["kernel"], pretrained["params"]["conv1"]["kernel"]
    )
    assert set(report.unused) == {"params/fc/kernel", "params/fc/bias"}
    assert all("/resnet/" in path for path in report.copied)
    with pytest.raises(WeightsError, match=r"(?s)no branch 'densenet'.*hidden, resnet"):
        merge_pretrained(network, pretrained, prefix="densenet")


def test_trunk_cut_at_a_stage_is_filled_but_not_one_cut_within(pretrained: dict[str, Any]) -> None:
    whole = flatten(fresh("resnet18", None))
    cut = {path: leaf for path, leaf in whole.items() if "/layer4_" not in path}
    _, report = merge_pretrained(unflatten(cut), pretrained)
    assert len(report.copied) == len(cut)
    assert any("/layer4_1/" in path for path in report.unused)
    ragged = {path: leaf for path, leaf in whole.items() if "/layer4_1/" not in path}
    with pytest.raises(WeightsError, match=r"(?s)unexpected:.*params/layer4_1/conv1/kernel"):
        merge_pretrained(unflatten(ragged), pretrained)


def test_deeper_weights_do_not_slip_into_a_shallower_network() -> None:
    deeper = convert_torchvision("densenet169", counting_state("densenet169"))
    with pytest.raises(WeightsError, match="block3_layer25"):
        merge_pretrained(fresh("densenet121", 5), deeper)


def test_every_misfit_is_listed_at_once(pretrained: dict[str, Any]) -> None:
    flat = flatten(pretrained)
    del flat["batch_stats/bn1/var"]
    flat["params/conv1/kernel"] = np.zeros((7, 7, 1, 64), np.float32)
    flat["params/layer1_0/bn1/scale"] = np.zeros(3, np.float32)
    flat["params/layer1_0/extra/scale"] = np.zeros(3, np.float32)
    with pytest.raises(WeightsError) as caught:
        merge_pretrained(fresh("resnet18", 5), unflatten(flat), where="file.pth")
    message = str(caught.value)
    for expected in (
        "batch_stats/bn1/var",
        "params/conv1/kernel: found (7, 7, 1, 64), expected (7, 7, 3, 64)",
        "params/layer1_0/bn1/scale: found (3,), expected (64,)",
        "params/layer1_0/extra/scale",
        "where: file.pth",
    ):
        assert expected in message


def test_dtype_and_placement_follow_the_network(pretrained: dict[str, Any]) -> None:
    device = jax.devices()[-1]
    template = jax.tree.map(
        lambda leaf: jax.device_put(jnp.asarray(leaf, jnp.bfloat16), device), fresh("resnet18", 10)
    )
    merged, _ = merge_pretrained(template, pretrained)
    kernel = merged["params"]["conv1"]["kernel"]
    assert kernel.dtype == jnp.bfloat16
    assert kernel.devices() == {device}


def test_file_naming_is_told_from_the_names(tmp_path: Path, pretrained: dict[str, Any]) -> None:
    save_file(without_counters(to_torchvision("resnet18", pretrained)), tmp_path / "torch.safetensors")
    save_variables(tmp_path / "own.safetensors", pretrained)
    network = fresh("resnet18", None, prefix="resnet/")
    save_variables(tmp_path / "whole.safetensors", merge_pretrained(network, pretrained, prefix="resnet")[0])
    for name in ("torch", "own", "whole"):
        merged, report = load_pretrained_into(network, tmp_path / f"{name}.safetensors", "resnet18", "resnet")
        assert len(report.copied) == len(leaves("resnet18", None)), name
        stem = branch(merged, "resnet")["params"]["conv1"]["kernel"]
        assert np.array_equal(stem, pretrained["params"]["conv1"]["kernel"]), name
    with pytest.raises(WeightsError, match=r"(?s)weights of resnet18.*"):
        load_pretrained_into(network, tmp_path / "torch.safetensors", "resnet34", "resnet")
    with pytest.raises(UsageError, match="'scam'"):
        load_pretrained_into(network, tmp_path / "torch.safetensors", "scam")

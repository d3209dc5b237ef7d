"""The rename tables against the networks themselves, and pretrained branches inside SCAM."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file
from state_dicts import counting_state, without_counters

from wbc_jax.errors import WeightsError
from wbc_jax.models import create_model
from wbc_jax.weights import load_pretrained_into
from wbc_jax.weights.merge import flatten
from wbc_jax.weights.naming import leaves


def zeros_of(name: str, **fields: Any) -> dict[str, Any]:
    """The network's variables, all zero, without computing an initialisation."""
    model = create_model(name, **fields)
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    shapes = jax.eval_shape(lambda key, images: model.init(key, images, train=False), key, images)
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)


@pytest.mark.parametrize(
    "arch",
    [
        "resnet18",
        "resnet34",
        "resnet50",
        "resnet101",
        "densenet121",
        "densenet169",
        "vgg19",
        "alexnet",
        "mobilenet_v2",
        "shufflenet_v2_x1_0",
        "vit_b_16",
    ],
)
def test_tables_list_the_networks_paths_and_shapes(arch: str) -> None:
    ours = {path: leaf.shape for path, leaf in flatten(zeros_of(arch, num_classes=7)).items()}
    assert ours == {leaf.path: leaf.shape for leaf in leaves(arch, 7)}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pretrained")
    paths = {}
    for arch in ("resnet50", "densenet121"):
        paths[arch] = folder / f"{arch}.safetensors"
        save_file(without_counters(counting_state(arch)), paths[arch])
    return paths


@pytest.mark.parametrize("cut", ["last", "14"])
def test_both_branches_of_scam(files: dict[str, Path], cut: str) -> None:
    variables = zeros_of("scam", num_classes=5, cut=cut)
    variables, resnet = load_pretrained_into(variables, files["resnet50"], "resnet50", "resnet")
    variables, densenet = load_pretrained_into(variables, files["densenet121"], "densenet121", "densenet")
    copied = {*resnet.copied, *densenet.copied}
    for path, leaf in flatten(variables).items():
        in_trunk = path.split("/")[1] in ("resnet", "densenet")
        assert in_trunk == (path in copied) == bool(np.any(leaf)), path
    assert ("params/norm5/scale" in densenet.unused) == (cut == "14")


def test_weights_of_the_other_branch_are_refused(files: dict[str, Path]) -> None:
    variables = zeros_of("scam", num_classes=5)
    with pytest.raises(WeightsError, match="these are the weights of densenet121"):
        load_pretrained_into(variables, files["densenet121"], "resnet50", "resnet")

"""ResNet18, ResNet50 and DenseNet121 against torchvision's modules: stages, logits, statistics, gradients."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest
import torch
import torch_twins as twins
from pairs import NUM_CLASSES, Pair, assert_evaluation, assert_gradients, assert_training, make_pair
from torch_reference import torchvision_models

from wbc_jax.models import create_model
from wbc_jax.models.densenet import DenseNet
from wbc_jax.models.resnet import ResNet
from wbc_jax.weights.naming import tables
from wbc_jax.weights.naming.densenet import densenet_leaves
from wbc_jax.weights.naming.resnet import ResNetForm

ARCHITECTURES = ("resnet18", "resnet50", "densenet121")


def stages_of(arch: str) -> dict[str, str]:
    return twins.DENSENET_STAGES if arch.startswith("densenet") else twins.RESNET_STAGES


@pytest.fixture(scope="module", params=ARCHITECTURES)
def pair(request: pytest.FixtureRequest) -> Pair:
    arch = request.param
    module = getattr(torchvision_models(), arch)(num_classes=NUM_CLASSES)
    return make_pair(arch, module, create_model(arch, num_classes=NUM_CLASSES), stages_of(arch))


@pytest.fixture(autouse=True)
def two_torch_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("size_px", [64, 97])
def test_evaluation(pair: Pair, size_px: int) -> None:
    assert_evaluation(pair, size_px)


def test_training_pass_and_running_statistics(pair: Pair) -> None:
    assert_training(pair, 97)


SHORT = {
    "basic blocks": "resnet_short_basic",
    "bottlenecks with projection": "resnet_short_bottleneck",
    "dense layers and transitions": "densenet_short",
}


@pytest.fixture(scope="module", params=SHORT.values(), ids=SHORT.keys())
def short_pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """One or two blocks per stage: every kind of block, with and without projection, in seconds."""
    arch = request.param
    models = torchvision_models()
    patch = pytest.MonkeyPatch()
    if arch == "densenet_short":
        layers = (2, 1, 2, 1)
        patch.setitem(tables.TABLES, arch, functools.partial(densenet_leaves, layers))
        module = models.DenseNet(32, layers, 64, num_classes=NUM_CLASSES)
        model = DenseNet(block_sizes=layers, num_classes=NUM_CLASSES)
    else:
        depths, basic = (2, 1, 1, 1), arch.endswith("basic")
        patch.setitem(tables.TABLES, arch, ResNetForm(depths, basic=basic).leaves)
        block = models.resnet.BasicBlock if basic else models.resnet.Bottleneck
        module = models.ResNet(block, list(depths), num_classes=NUM_CLASSES)
        model = ResNet(stage_sizes=depths, bottleneck=not basic, num_classes=NUM_CLASSES)
    yield make_pair(arch, module, model, stages_of(arch))
    patch.undo()


@pytest.mark.parametrize("train", [True, False], ids=["batch statistics", "running statistics"])
def test_gradients_of_every_parameter(short_pair: Pair, train: bool) -> None:
    assert_gradients(short_pair, train)

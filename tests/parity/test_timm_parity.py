"""Networks that only timm has, against their re-statement in torch: stages, logits, statistics, gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import pytest
import torch
import torch_zoo as zoo
from pairs import (
    KINK_TOLERANCE,
    NUM_CLASSES,
    Pair,
    assert_evaluation,
    assert_gradients,
    assert_training,
    make_pair,
)
from torch import nn

from wbc_jax.models import create_model
from wbc_jax.models.zoo.dpn import DPN
from wbc_jax.models.zoo.inception_v4 import InceptionV4
from wbc_jax.models.zoo.mobilenet_v1 import MobileNetV1
from wbc_jax.weights.naming import leaves, parameter_count, tables
from wbc_jax.weights.naming.dpn import DPNForm
from wbc_jax.weights.naming.inception_v4 import InceptionV4Form
from wbc_jax.weights.naming.mobilenet_v1 import MobileNetV1Form


class Whole(NamedTuple):
    """A network at full size: how torch makes it, what timm counts, which of its parts end our stages."""

    module: Callable[[int], nn.Module]
    parameters: int
    stages: dict[str, str]
    size_px: int


def dpn_stages(*depths: int) -> dict[str, str]:
    ends = {
        f"features.conv{stage + 1}_{depth}": f"stage{stage}" for stage, depth in enumerate(depths, start=1)
    }
    return {"features.conv1_1": "stem", **ends, "features.conv5_bn_ac": "normed"}


def inception_stages(a: int, b: int, c: int) -> dict[str, str]:
    ends = {"stage2": 5 + a, "stage3": 6 + a + b, "stage4": 7 + a + b + c}
    return {
        "features.2": "stem",
        "features.3": "stage1",
        **{f"features.{i}": name for name, i in ends.items()},
    }


MOBILE_STAGES = {f"blocks.{stage - 1}": f"stage{stage}" for stage in range(1, 6)}
DPN68 = {"depths": (3, 4, 12, 3), "growths": (16, 32, 32, 64), "first": 64, "middle": 128, "stem": (10, 3)}
DPN92 = {"depths": (3, 4, 20, 3), "growths": (16, 32, 24, 128), "first": 256, "middle": 96, "stem": (64, 7)}

WHOLE: dict[str, Whole] = {
    "mobilenet_v1": Whole(zoo.MobileNetV1, 4_231_976, MOBILE_STAGES, 97),
    "dpn68": Whole(lambda classes: zoo.DPN(classes, **DPN68), 12_611_602, dpn_stages(3, 4, 12, 3), 97),
    "dpn92": Whole(lambda classes: zoo.DPN(classes, **DPN92), 37_668_392, dpn_stages(3, 4, 20, 3), 64),
}


@pytest.mark.parametrize("arch", WHOLE)
def test_evaluation_of_the_whole_network(arch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # A CPU's forms split each of dpn's convolutions into 32, which takes minutes to compile and seconds to compute.
    monkeypatch.setattr(jax, "default_backend", lambda: "elsewhere")
    whole = WHOLE[arch]
    assert parameter_count(arch) == whole.parameters
    model = create_model(arch, num_classes=NUM_CLASSES)
    # The last maps of small images have too few positions for statistics that keep activations of order one.
    pair = make_pair(arch, whole.module(NUM_CLASSES), model, whole.stages, size_px=2 * whole.size_px)
    assert_evaluation(pair, whole.size_px)


class Short(NamedTuple):
    """Every kind of block once, in both frameworks, and the table of its names."""

    module: nn.Module
    model: Any
    form: Any
    stages: dict[str, str]
    size_px: int


def short_networks() -> dict[str, Short]:
    widths, depths = (8, 16, 16, 24, 32), (1, 2, 1, 1, 1)
    dpn = {
        "depths": (2, 1, 2, 1),
        "growths": (4, 4, 8, 8),
        "first": 16,
        "middle": 16,
        "stem": (8, 3),
        "groups": 4,
    }
    fields = {"stage_sizes": (2, 1, 2, 1), "growths": (4, 4, 8, 8), "residual": 16, "inner": 16, "groups": 4}
    return {
        "mobilenet_v1_short": Short(
            zoo.MobileNetV1(NUM_CLASSES, widths, depths),
            MobileNetV1(NUM_CLASSES, widths=widths, stage_sizes=depths),
            MobileNetV1Form(depths, widths),
            MOBILE_STAGES,
            64,
        ),
        "dpn_short": Short(
            zoo.DPN(NUM_CLASSES, **dpn),
            DPN(NUM_CLASSES, **fields, stem_features=8, stem_kernel=3),
            DPNForm(**fields, stem=8, stem_kernel=3),
            dpn_stages(2, 1, 2, 1),
            64,
        ),
        "inception_v4_short": Short(
            zoo.InceptionV4(NUM_CLASSES, (1, 1, 1)),
            InceptionV4(NUM_CLASSES, repeats=(1, 1, 1)),
            InceptionV4Form((1, 1, 1)),
            inception_stages(1, 1, 1),
            171,
        ),
    }


@pytest.fixture(scope="module", params=["mobilenet_v1_short", "dpn_short", "inception_v4_short"])
def short_pair(request: pytest.FixtureRequest) -> Iterator[tuple[Pair, int]]:
    short, patch = short_networks()[request.param], pytest.MonkeyPatch()
    patch.setitem(tables.TABLES, request.param, short.form.leaves)
    pair = make_pair(request.param, short.module, short.model, short.stages, size_px=short.size_px)
    yield pair._replace(relative=request.param.startswith("inception")), short.size_px
    patch.undo()


def test_training_pass_and_running_statistics(short_pair: tuple[Pair, int]) -> None:
    assert_training(*short_pair)


@pytest.mark.parametrize("train", [True, False], ids=["batch statistics", "running statistics"])
def test_gradients_of_every_parameter(short_pair: tuple[Pair, int], train: bool) -> None:
    pair, size_px = short_pair
    # Inception has so many ReLUs and maxima near a kink that torch in float32 is 1.2e-2 from torch in float64.
    tolerance = 3e-2 if pair.arch.startswith("inception") else KINK_TOLERANCE
    assert_gradients(pair, train, size_px=size_px, tolerance=tolerance)


def test_names_shapes_and_total_of_the_whole_inception() -> None:
    """Compared are its blocks, once each: at full depth rounding alone reaches TOLERANCE."""
    with torch.device("meta"):
        whole = zoo.InceptionV4(1000)
    assert parameter_count("inception_v4") == 42_679_816 == sum(p.numel() for p in whole.parameters())
    theirs = {name: tuple(a.shape) for name, a in whole.state_dict().items() if "num_batches" not in name}
    assert {leaf.torch_name: leaf.torch_shape for leaf in leaves("inception_v4")} == theirs


def test_evaluation(short_pair: tuple[Pair, int]) -> None:
    pair, size_px = short_pair
    assert_evaluation(pair._replace(relative=False), size_px)

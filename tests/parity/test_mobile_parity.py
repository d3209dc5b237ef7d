"""MobileNetV2 and ShuffleNetV2 against torchvision's modules: stages, logits, statistics, gradients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pairs import NUM_CLASSES, Pair, assert_evaluation, assert_gradients, assert_training, make_pair
from torch_reference import torchvision_models

from wbc_jax.models import create_model
from wbc_jax.models.zoo.mobilenet_v2 import MobileNetV2
from wbc_jax.models.zoo.shufflenet_v2 import ShuffleNetV2
from wbc_jax.weights.naming import tables
from wbc_jax.weights.naming.mobilenet_v2 import MobileNetV2Form
from wbc_jax.weights.naming.shufflenet_v2 import ShuffleNetV2Form

STAGES: dict[str, dict[str, str]] = {
    "mobilenet_v2": {
        "features.0": "stem",
        **{f"features.{last}": f"stage{s}" for s, last in enumerate((1, 3, 6, 10, 13, 16, 17), start=1)},
        "features.18": "widened",
    },
    "shufflenet_v2_x1_0": {
        "conv1": "stem",
        **{f"stage{stage}": f"stage{stage}" for stage in (2, 3, 4)},
        "conv5": "conv5",
    },
}
NO_DROPOUT: dict[str, dict[str, Any]] = {"mobilenet_v2": {"dropout_rate": 0.0}, "shufflenet_v2_x1_0": {}}


@pytest.fixture(scope="module", params=STAGES)
def pair(request: pytest.FixtureRequest) -> Pair:
    arch = request.param
    options = {"dropout": 0.0} if NO_DROPOUT[arch] else {}
    module = getattr(torchvision_models(), arch)(num_classes=NUM_CLASSES, **options)
    model = create_model(arch, num_classes=NUM_CLASSES, **NO_DROPOUT[arch])
    # The last maps of small images have too few positions for statistics that keep activations of order one.
    return make_pair(arch, module, model, STAGES[arch], size_px=160)


@pytest.mark.parametrize("size_px", [64, 97])
def test_evaluation(pair: Pair, size_px: int) -> None:
    assert_evaluation(pair, size_px)


@pytest.fixture(scope="module", params=["mobilenet_short", "shufflenet_short"])
def short_pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Every kind of block: with and without expansion, with and without the sum, either stride."""
    arch = request.param
    models, patch = torchvision_models(), pytest.MonkeyPatch()
    if arch == "mobilenet_short":
        rows = ((1, 8, 1, 1), (6, 16, 2, 2), (2, 16, 1, 1), (3, 24, 1, 2))
        form = MobileNetV2Form(stages=tuple((t, c, n) for t, c, n, _ in rows))
        module = models.MobileNetV2(
            NUM_CLASSES, inverted_residual_setting=[list(row) for row in rows], dropout=0.0
        )
        model = MobileNetV2(NUM_CLASSES, stages=rows, dropout_rate=0.0)
        stages = {
            "features.0": "stem",
            "features.1": "stage1",
            "features.3": "stage2",
            "features.6": "widened",
        }
    else:
        form = ShuffleNetV2Form((2, 1, 1), (16, 24, 32), widened=40)
        module = models.ShuffleNetV2([2, 1, 1], [24, 16, 24, 32, 40], NUM_CLASSES)
        model = ShuffleNetV2(NUM_CLASSES, stage_sizes=(2, 1, 1), widths=(16, 24, 32), widened_features=40)
        stages = STAGES["shufflenet_v2_x1_0"]
    patch.setitem(tables.TABLES, arch, form.leaves)
    yield make_pair(arch, module, model, stages)
    patch.undo()


@pytest.mark.parametrize("train", [True, False], ids=["batch statistics", "running statistics"])
def test_gradients_of_every_parameter(short_pair: Pair, train: bool) -> None:
    # A constant added before a 1x1 convolution that a norm with batch statistics follows is taken away again.
    linear_units = ("project/bn/bias",) if short_pair.arch == "mobilenet_short" else ("depthwise/bn/bias",)
    assert_gradients(short_pair, train, vanishing=linear_units if train else ())


def test_training_pass_and_running_statistics(short_pair: Pair) -> None:
    """At full depth with batch statistics torch in float32 is further than TOLERANCE from torch in float64."""
    assert_training(short_pair, 97)

"""WBC-AMNet's blocks against a re-statement in torch: outputs and gradients, in training and in evaluation."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch_amnet as reference
import torch_twins as twins
from block_parity import assert_same_block

from wbc_jax.models.amnet import FocalisedAttention, PooledStem
from wbc_jax.models.gather_excite import GatherExcite, nearest
from wbc_jax.models.layers import adaptive_average_pool
from wbc_jax.models.resnet import _Block

TRAINING = pytest.mark.parametrize("train", [True, False], ids=["batch statistics", "running statistics"])


def our_path(torch_name: str) -> str:
    """Flax path of a name within a block."""
    module, _, leaf = torch_name.rpartition(".")
    collection = "batch_stats" if leaf.startswith("running_") else "params"
    is_norm = re.search(r"bn\d?$", module) is not None
    ours = {"weight": "scale" if is_norm else "kernel", "running_mean": "mean", "running_var": "var"}
    return f"{collection}/{module}/{ours.get(leaf, leaf)}".replace(".", "/")


@TRAINING
@pytest.mark.parametrize("stride", [1, 2])
def test_squeeze_excite_bottleneck(stride: int, train: bool) -> None:
    generator = np.random.default_rng(1)
    x = generator.normal(0.2, 1.0, (2, 10, 9, 24)).astype(np.float32)
    block = _Block(16, stride, bottleneck=True, inner_width=32, groups=8, squeeze_excite=True)

    def apply(variables: Any, x: jax.Array) -> jax.Array:
        return block.apply(variables, x, use_running_average=not train, mutable=["batch_stats"])[0]

    assert_same_block(reference.SEBottleneck(24, 16, 32, 8, stride), apply, our_path, x, generator, train)


@TRAINING
@pytest.mark.parametrize("kind", ["theta_minus", "theta", "theta_plus"])
@pytest.mark.parametrize("extent", ["global", "2", "4", "8"])
def test_gather_excite(kind: Any, extent: Any, train: bool) -> None:
    generator = np.random.default_rng(2)
    size = (16, 18) if extent == "8" else (7, 9)
    x = generator.normal(0.2, 1.0, (5, *size, 16)).astype(np.float32)
    gate = GatherExcite(kind, extent)

    def apply(variables: Any, x: jax.Array) -> jax.Array:
        return x * gate.apply(variables, x, use_running_average=not train, mutable=["batch_stats"])[0]

    def path(name: str) -> str:  # the global kernel is a parameter of the gate itself
        return our_path(name).replace("params/conv/kernel", "params/kernel")

    theirs = reference.GatherExcite(kind, extent, 16, size)
    assert_same_block(theirs, apply, path, x, generator, train)


@pytest.mark.parametrize("size", [(7, 7), (4, 6), (9, 11)])
def test_adaptive_pooling_and_nearest_enlargement(size: tuple[int, int]) -> None:
    x = np.random.default_rng(3).normal(size=(2, 14, 21, 5)).astype(np.float32)
    pooled = torch.nn.functional.adaptive_avg_pool2d(twins.to_nchw(x), size).permute(0, 2, 3, 1).numpy()
    assert twins.largest_difference(adaptive_average_pool(jnp.asarray(x), size), pooled) <= 1e-6
    larger = torch.nn.functional.interpolate(twins.to_nchw(pooled), (14, 21), mode="nearest")
    enlarged = nearest(jnp.asarray(pooled), (14, 21))
    assert np.array_equal(enlarged, larger.permute(0, 2, 3, 1).numpy())


@pytest.mark.parametrize(("pixels", "size"), [(64, (2, 2)), (75, (5, 3))])
def test_pooled_stem_is_the_literal_convolution_then_pooling(pixels: int, size: tuple[int, int]) -> None:
    """The paper's table: 7x7 stride 2 to many channels, averaged to the last map's size."""
    generator = np.random.default_rng(4)
    images = generator.normal(0.3, 1.0, (2, pixels, pixels + 6, 3)).astype(np.float32)

    class Literal(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 32, 7, 2, 3, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.adaptive_avg_pool2d(self.conv(x), size)

    stem = PooledStem(32, size)
    assert_same_block(
        Literal(), lambda v, x: stem.apply(v, x), lambda _: "params/kernel", images, generator, train=False
    )


@TRAINING
@pytest.mark.parametrize("fusion", [True, False])
def test_focalised_attention(fusion: bool, train: bool) -> None:
    """out = SE(P(X1) + X5) + GE(X5) + X5 on given features."""
    generator = np.random.default_rng(5)
    first = generator.normal(0.2, 1.0, (4, 12, 12, 8)).astype(np.float32)
    last = generator.normal(0.2, 1.0, (4, 3, 3, 32)).astype(np.float32)

    class Attention(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            if fusion:
                self.project = torch.nn.Conv2d(8, 32, 1, bias=False)
                self.project_bn = torch.nn.BatchNorm2d(32)
            self.se = reference.SqueezeExcite(32)
            self.ge = reference.GatherExcite("theta", "global", 32, (3, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if not fusion:
                return self.se(x) + self.ge(x)
            pooled = torch.nn.functional.avg_pool2d(twins.to_nchw(first), 4)
            return self.se(self.project_bn(self.project(pooled)) + x) + self.ge(x) + x

    attention = FocalisedAttention(use_fusion=fusion)

    def apply(variables: Any, x: jax.Array) -> jax.Array:
        inputs = (jnp.zeros((4, 24, 24, 3), jnp.float32), jnp.asarray(first), x)
        out, _ = attention.apply(variables, *inputs, use_running_average=not train, mutable=["batch_stats"])
        return out[0]

    def path(name: str) -> str:
        return our_path(name).replace("params/ge/conv/kernel", "params/ge/kernel")

    assert_same_block(Attention(), apply, path, last, generator, train)

"""One block of each kind against torchvision's: output and the gradients of every parameter and of the input.

Maps are small on purpose: with some ten thousand activations none lies within rounding of a ReLU's kink, so the
gradients of both frameworks agree to rounding.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch_twins as twins
from block_parity import assert_same_block
from torch import nn
from torch_reference import torchvision_models

from wbc_jax.models.densenet import _DenseLayer, _Transition
from wbc_jax.models.layers import batch_moments, max_pool
from wbc_jax.models.resnet import _Block

INPUT_CHANNELS = 24


def residual(kind: str, width: int, stride: int) -> tuple[nn.Module, Any]:
    outputs = width * (4 if kind == "Bottleneck" else 1)
    changes = stride != 1 or outputs != INPUT_CHANNELS
    projection = nn.Sequential(
        nn.Conv2d(INPUT_CHANNELS, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
    )
    block = getattr(torchvision_models().resnet, kind)
    theirs = block(INPUT_CHANNELS, width, stride, projection if changes else None)
    return theirs, _Block(width, stride, kind == "Bottleneck")


def dense_layer() -> tuple[nn.Module, Any]:
    theirs = torchvision_models().densenet._DenseLayer(INPUT_CHANNELS, 8, 4, 0.0)
    return theirs, _DenseLayer(8, jnp.float32, None)


def transition() -> tuple[nn.Module, Any]:
    theirs = torchvision_models().densenet._Transition(INPUT_CHANNELS, INPUT_CHANNELS // 2)
    return theirs, _Transition(INPUT_CHANNELS // 2, jnp.float32, None)


BLOCKS: dict[str, Callable[[], tuple[nn.Module, Any]]] = {
    "basic block": lambda: residual("BasicBlock", INPUT_CHANNELS, 1),
    "basic block with projection": lambda: residual("BasicBlock", 32, 2),
    "bottleneck": lambda: residual("Bottleneck", INPUT_CHANNELS // 4, 1),
    "bottleneck with projection": lambda: residual("Bottleneck", 16, 2),
    "dense layer": dense_layer,
    "transition": transition,
}


def our_path(torch_name: str) -> str:
    """Flax path of a name within a block."""
    name = torch_name.replace("downsample.0", "downsample_conv").replace("downsample.1", "downsample_bn")
    module, _, leaf = name.rpartition(".")
    is_conv = re.search("conv", module) is not None
    collection = "batch_stats" if leaf.startswith("running_") else "params"
    ours = {"weight": "kernel" if is_conv else "scale", "running_mean": "mean", "running_var": "var"}
    return f"{collection}/{module}/{ours.get(leaf, leaf)}"


def apply_block(block: Any, variables: Any, x: jax.Array, train: bool) -> jax.Array:
    """Run a block; dense blocks take their input's statistics from outside."""
    if isinstance(block, _Block):
        return block.apply(variables, x, use_running_average=not train, mutable=["batch_stats"])[0]
    moments = batch_moments(x) if train else None
    return block.apply(variables, x, moments, frozen=not train, mutable=["batch_stats"])[0]


@pytest.mark.parametrize("train", [True, False], ids=["batch statistics", "running statistics"])
@pytest.mark.parametrize("kind", BLOCKS)
def test_block(kind: str, train: bool) -> None:
    theirs, ours = BLOCKS[kind]()
    generator = np.random.default_rng(3)
    images = generator.normal(0.2, 1.0, (2, 10, 9, INPUT_CHANNELS)).astype(np.float32)

    def apply(variables: Any, x: jax.Array) -> jax.Array:
        return apply_block(ours, variables, x, train)

    assert_same_block(theirs, apply, our_path, images, generator, train)


@pytest.mark.parametrize("size", [(8, 8), (9, 11)])
def test_stem_pooling_passes_gradients_to_the_same_pixels(size: tuple[int, int]) -> None:
    generator = np.random.default_rng(4)
    images = generator.normal(-1.0, 1.0, (2, *size, 5)).astype(np.float32)  # partly all-negative windows
    leaf = twins.to_nchw(images).requires_grad_()
    pooled = nn.functional.max_pool2d(leaf, 3, 2, 1)
    weights = generator.normal(size=tuple(pooled.permute(0, 2, 3, 1).shape)).astype(np.float32)
    (pooled.permute(0, 2, 3, 1) * torch.from_numpy(weights)).sum().backward()
    assert np.array_equal(max_pool(jnp.asarray(images)), pooled.detach().permute(0, 2, 3, 1).numpy())
    grad = jax.grad(lambda x: jnp.sum(max_pool(x) * weights))(jnp.asarray(images))
    assert leaf.grad is not None
    assert twins.largest_difference(grad, leaf.grad.permute(0, 2, 3, 1).numpy()) <= 1e-6

"""DAFFNet's blocks against a re-statement in torch: outputs and gradients, in training and in evaluation."""

from __future__ import annotations

import re
from typing import Any

import jax
import numpy as np
import pytest
import torch_daffnet as reference
from block_parity import assert_same_block

from wbc_jax.models.morphology import MorphologyEncoder
from wbc_jax.models.psa import PyramidSqueezeAttention
from wbc_jax.models.resnet import _Block

GATES = re.compile(r"squeeze|excite|expand_|row_")


def our_path(torch_name: str) -> str:
    """Flax path of a name within a block; the gates' 1x1 convolutions are matrices here."""
    module, _, leaf = torch_name.rpartition(".")
    collection = "batch_stats" if leaf.startswith("running_") else "params"
    is_norm = re.search(r"bn\d?$", module) is not None
    ours = {"weight": "scale" if is_norm else "kernel", "running_mean": "mean", "running_var": "var"}
    return f"{collection}/{module}/{ours.get(leaf, leaf)}".replace(".", "/")


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(10, 9), (7, 7)])
def test_pyramid_squeeze_attention(stride: int, size: tuple[int, int]) -> None:
    generator = np.random.default_rng(1)
    x = generator.normal(0.2, 1.0, (2, *size, 64)).astype(np.float32)
    block = PyramidSqueezeAttention(stride)

    def apply(variables: Any, x: jax.Array) -> jax.Array:
        return block.apply(variables, x)

    assert_same_block(reference.PyramidSqueeze(64, stride), apply, our_path, x, generator, train=False)


@pytest.mark.parametrize("train", [True, False], ids=["batch statistics", "running statistics"])
@pytest.mark.parametrize(("stride", "gate"), [(1, True), (2, True), (2, False)])
def test_epsa_block(stride: int, gate: bool, train: bool) -> None:
    generator = np.random.default_rng(2)
    x = generator.normal(0.2, 1.0, (2, 10, 9, 24)).astype(np.float32)
    block = _Block(64, stride, bottleneck=True, mixing="psa", spatial_gate=gate)
    theirs = reference.EPSABlock(24, 64, stride, gate)

    def apply(variables: Any, x: jax.Array) -> jax.Array:
        return block.apply(variables, x, use_running_average=not train, mutable=["batch_stats"])[0]

    assert_same_block(theirs, apply, our_path, x, generator, train)


@pytest.mark.parametrize("train", [True, False], ids=["batch statistics", "running statistics"])
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_morphology_encoder(padding: Any, train: bool) -> None:
    generator = np.random.default_rng(3)
    probabilities = generator.uniform(0.0, 1.0, (6, 31)).astype(np.float32)
    encoder = MorphologyEncoder(padding)

    def apply(variables: Any, x: jax.Array) -> jax.Array:
        return encoder.apply(variables, x, use_running_average=not train, mutable=["batch_stats"])[0]

    # A norm with batch statistics undoes any bias before it, and the scale of a single input channel.
    undone = ("conv1/kernel", "conv1/bias", "conv2/bias", "conv3/bias") if train else ()
    theirs = reference.Encoder(padding)
    assert_same_block(theirs, apply, our_path, probabilities, generator, train, undone)

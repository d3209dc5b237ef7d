"""FLOPs and memory traffic of a network per image, counted from its shapes; no weights are made, nothing runs.

These networks are bound by memory traffic, so the share of the traffic limit says how well a step uses a device, and
MFU does not. The rules count each pass over a feature map once (no reuse in caches), A elements in and O out:

    =====================================  ======================================  ==================
    operation                              training                                inference, BN folded
    =====================================  ======================================  ==================
    convolution                            3 A + 3 O (forward, both gradients)     A + O
    BN + ReLU on a convolution's output    8 O (statistics 1, normalise 2,         0
                                           backward reduction 2 and result 3)
    BN + ReLU on another map               9 A (reads a concatenation)             2 A
    sum of two maps                        3 O                                     O
    max pool                               3 A + 2 O                               A + O
    average pool                           2 A + 2 O                               A + O
    gate on a map                          7 A (pool 1, scale 2, backward 4)       3 A (pool 1, scale 2)
      whose product goes into a sum        5 A (the sum's pass scales)             3 A
    =====================================  ======================================  ==================

Backward a gate reads cotangent and map for its own gradient, and only then can read the cotangent again and write the
map's. A pyramid of convolutions is a gate on their outputs side by side, which its passes read where they lie, and its
product counts as a convolution's output for the BN behind it.

Weights, optimiser and vectors per channel are left out: below 1 % at batch 256, more at batch 8.
ResNet50 trains with 346 MB an image in bfloat16: 129 convolutions, 178 BN, 39 the rest. SE-ResNeXt50 with 490: 55 of
them its gates'.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from wbc_jax.models.attention import ChannelGate, EfficientChannelAttention, SpatialGate, SqueezeExcite
from wbc_jax.models.gather_excite import GatherExcite
from wbc_jax.models.layers import BatchNorm, Conv, Linear
from wbc_jax.models.lowerings import KINDS, Form, forms
from wbc_jax.models.psa import PyramidSqueezeAttention

Mode = Literal["train", "infer"]
_GATES = (SpatialGate, ChannelGate, SqueezeExcite, EfficientChannelAttention, GatherExcite)


@dataclass(frozen=True)
class Traffic:
    """Work and memory traffic of one image.

    Attributes:
        forward_macs: multiply-accumulates of convolutions and linear layers, forward.
        flops: of the whole step: forward, or forward and both gradients (the images need none).
        conv_bytes, norm_bytes, other_bytes: read and written by convolutions, by BN on their outputs, by the rest.
    """

    forward_macs: int
    flops: int
    conv_bytes: int
    norm_bytes: int
    other_bytes: int

    @property
    def total_bytes(self) -> int:
        return self.conv_bytes + self.norm_bytes + self.other_bytes


class _Counts:
    """Elements and operations seen while a network is traced."""

    def __init__(self, train: bool) -> None:
        self.train = train
        self.macs = self.image_macs = self.conv = self.norm = self.other = 0
        self._conv_outputs: list[Any] = []  # kept alive, so that an object is told by its identity

    def intercept(self, images: Any) -> Any:
        """The function for `nn.intercept_methods`; `images` is the network's input while it is traced."""

        def count(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
            result = call(*args, **kwargs)
            if context.method_name == "__call__":
                self._module(context.module, args[0] if args else None, result, images)
            return result

        return count

    def _module(self, module: nn.Module, x: Any, result: Any, images: Any) -> None:
        if isinstance(module, Conv):
            macs = result.size * math.prod(module.window) * x.shape[-1] // module.groups
            self.macs += macs
            self.image_macs += macs if x is images else 0
            self.conv += 3 * (x.size + result.size) if self.train else x.size + result.size
            self._conv_outputs.append(result)
        elif isinstance(module, Linear):
            self.macs += x.shape[-1] * result.size
        elif isinstance(module, BatchNorm):
            if any(x is output for output in self._conv_outputs):
                self.norm += 8 * x.size if self.train else 0
            else:
                self.other += 9 * x.size if self.train else 2 * x.size
        elif isinstance(module, _GATES):
            self.other += 7 * x.size if self.train else 3 * x.size
        elif isinstance(module, PyramidSqueezeAttention):
            self.other += 7 * result.size if self.train else 3 * result.size
            self._conv_outputs.append(result)

    def equations(self, jaxpr: Any, gated: frozenset[Any] = frozenset()) -> None:
        """Adds sums of two maps and poolings, which are no modules; `gated` are maps that a gate has scaled."""
        made_by: dict[Any, str] = {}
        for equation in jaxpr.eqns:
            name = equation.primitive.name
            made_by.update(dict.fromkeys(equation.outvars, name))
            spread = _is_map(equation.outvars[0]) and _broadcast(equation, made_by)
            if name == "mul" and spread:
                gated |= {equation.outvars[0]}
            elif name == "add" and _is_map(equation.outvars[0]) and not spread:
                self.other += (3 if self.train else 1) * _size(equation.outvars[0])
                if (
                    self.train
                ):  # in inference a sum is part of a convolution's pass, which a gate comes between
                    self.other -= 2 * sum(_size(x) for x in equation.invars if x in gated)
            elif name == "reduce_window_max":
                inputs, outputs = _size(equation.invars[0]), _size(equation.outvars[0])
                self.other += 3 * inputs + 2 * outputs if self.train else inputs + outputs
            elif (
                name == "reduce_sum" and len(equation.invars[0].aval.shape) == 6
            ):  # windows of an average pool
                inputs, outputs = _size(equation.invars[0]), _size(equation.outvars[0])
                self.other += (2 if self.train else 1) * (inputs + outputs)
            for inner in _inner(equation):
                self.equations(inner, frozenset(_passed(gated, equation, inner)))


def count_traffic(model: nn.Module, image_size_px: int, mode: Mode, activation_bytes: int) -> Traffic:
    """Counts one image at a square size by the rules above.

    Args:
        model: network of the contract `(logits, endpoints) = apply(variables, images, train=...)`, built of the
            package's layers.
        image_size_px: side of the image.
        mode: a training step, or inference.
        activation_bytes: bytes of an element of a feature map, 2 for bfloat16.
    """
    train = mode == "train"
    counts = _Counts(train)
    # Two images: an array of one element per sample could be mistaken for a broadcast one.
    batch = 2
    images = jax.ShapeDtypeStruct((batch, image_size_px, image_size_px, 3), jnp.float32)
    keys = jax.eval_shape(lambda: jax.random.key(0))
    variables = jax.eval_shape(lambda key, x: model.init(key, x, train=False), keys, images)

    def apply(variables: Any, images: Any, key: Any) -> Any:
        with nn.intercept_methods(counts.intercept(images)):
            mutable = ["batch_stats"] if train else False
            return model.apply(variables, images, train=train, mutable=mutable, rngs={"dropout": key})

    # The work of the network as it was published, whatever a backend's forms save.
    native: dict[str, Form] = dict.fromkeys(KINDS, "native")
    with forms(**native):
        counts.equations(jax.make_jaxpr(apply)(variables, images, keys).jaxpr)
    macs = counts.macs // batch
    element = activation_bytes / batch
    return Traffic(
        forward_macs=macs,
        flops=6 * macs - 2 * (counts.image_macs // batch) if train else 2 * macs,
        conv_bytes=int(counts.conv * element),
        norm_bytes=int(counts.norm * element),
        other_bytes=int(counts.other * element),
    )


def element_bytes(dtype: Any) -> int:
    """Bytes of one element."""
    return np.dtype(dtype).itemsize


def _size(variable: Any) -> int:
    return math.prod(variable.aval.shape)


def _is_map(variable: Any) -> bool:
    shape = variable.aval.shape
    return len(shape) == 4 and shape[1] > 1 and shape[-1] > 1


def _broadcast(equation: Any, made_by: dict[Any, str]) -> bool:
    """Is one of the operands a number or vector spread over the map, as a bias is?"""
    shape = equation.outvars[0].aval.shape
    return any(
        hasattr(operand, "val")  # a literal
        or operand.aval.shape != shape
        or made_by.get(operand) == "broadcast_in_dim"
        for operand in equation.invars
    )


def _passed(variables: frozenset[Any], equation: Any, inner: Any) -> Iterator[Any]:
    """What an equation's function calls those of its operands that are among `variables`."""
    if len(inner.invars) == len(equation.invars):
        for own, operand in zip(inner.invars, equation.invars, strict=True):
            if not hasattr(operand, "val") and operand in variables:
                yield own


def _inner(equation: Any) -> Iterator[Any]:
    for value in equation.params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            inner = getattr(item, "jaxpr", item)
            if hasattr(inner, "eqns"):
                yield inner

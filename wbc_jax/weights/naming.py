"""torchvision's parameter names and ours, leaf by leaf, for the eight trunks. Pure: no files, no torch.

Every leaf is listed with both names and its shape, so a state dict is matched by name and never by order.
Structure from torchvision `models/resnet.py` and `models/densenet.py`; layouts of the two frameworks:
convolution OIHW <-> HWIO, linear (out, in) <-> (in, out), everything else as it is.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

Kind = Literal["conv", "linear", "vector"]

RESNET_DEPTHS: dict[str, tuple[int, int, int, int]] = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
}
"""Residual blocks per stage."""

BASIC_BLOCKS: tuple[str, ...] = ("resnet18", "resnet34")
"""Built of two 3x3 convolutions per block; the others of bottlenecks."""

DENSENET_LAYERS: dict[str, tuple[int, int, int, int]] = {
    "densenet121": (6, 12, 24, 16),
    "densenet169": (6, 12, 32, 32),
    "densenet201": (6, 12, 48, 32),
}
"""Dense layers per block; growth 32, bottleneck factor 4, 64 channels after the stem."""

ARCHITECTURES: tuple[str, ...] = (*RESNET_DEPTHS, *DENSENET_LAYERS)

_WRAPPERS = ("module.", "_orig_mod.")  # what DataParallel and torch.compile put in front of every name
_OLD_DENSE_NAME = re.compile(r"(\.denselayer\d+\.)(norm|relu|conv)\.([12])\.")
_FROM_TORCH = {"conv": (2, 3, 1, 0), "linear": (1, 0), "vector": (0,)}
_TO_TORCH = {"conv": (3, 2, 0, 1), "linear": (1, 0), "vector": (0,)}


@dataclass(frozen=True)
class Leaf:
    """One array of a network under both of its names.

    Attributes:
        torch_name: key of torchvision's state dict.
        path: collection and Flax path, `"params/layer1_0/conv1/kernel"`.
        shape: shape in Flax layout.
        kind: which axes to exchange.
    """

    torch_name: str
    path: str
    shape: tuple[int, ...]
    kind: Kind

    @property
    def torch_shape(self) -> tuple[int, ...]:
        return tuple(self.shape[axis] for axis in _TO_TORCH[self.kind])

    def from_torch(self, array: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(array.transpose(_FROM_TORCH[self.kind]))

    def to_torch(self, array: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(array.transpose(_TO_TORCH[self.kind]))


@dataclass(frozen=True)
class ShapeMismatch:
    """A name that both sides have, with different shapes."""

    name: str
    found: tuple[int, ...]
    expected: tuple[int, ...]


@dataclass(frozen=True)
class NameReport:
    """Everything that keeps a set of named arrays from being the network it is said to be."""

    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[ShapeMismatch, ...] = ()
    repeated: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return not (self.missing or self.unexpected or self.mismatched or self.repeated)

    def lines(self, most: int = 30) -> list[str]:
        """The report for people: each kind of problem with its count and its first `most` names."""
        shapes = [f"{m.name}: found {m.found}, expected {m.expected}" for m in self.mismatched]
        groups = (
            ("missing", self.missing),
            ("unexpected", self.unexpected),
            ("of another shape", tuple(shapes)),
            ("given twice", self.repeated),
        )
        text = []
        for title, names in groups:
            if names:
                text.append(f"{len(names)} {title}:")
                text.extend(f"  {name}" for name in names[:most])
                if len(names) > most:
                    text.append(f"  … and {len(names) - most} more")
        return text


def _conv(torch_name: str, path: str, kernel: int, inputs: int, outputs: int) -> Iterator[Leaf]:
    yield Leaf(f"{torch_name}.weight", f"params/{path}/kernel", (kernel, kernel, inputs, outputs), "conv")


def _norm(torch_name: str, path: str, channels: int) -> Iterator[Leaf]:
    for theirs, collection, ours in (
        ("weight", "params", "scale"),
        ("bias", "params", "bias"),
        ("running_mean", "batch_stats", "mean"),
        ("running_var", "batch_stats", "var"),
    ):
        yield Leaf(f"{torch_name}.{theirs}", f"{collection}/{path}/{ours}", (channels,), "vector")


def _linear(name: str, inputs: int, outputs: int) -> Iterator[Leaf]:
    yield Leaf(f"{name}.weight", f"params/{name}/kernel", (inputs, outputs), "linear")
    yield Leaf(f"{name}.bias", f"params/{name}/bias", (outputs,), "vector")


def _basic_block(theirs: str, ours: str, inputs: int, width: int) -> Iterator[Leaf]:
    yield from _conv(f"{theirs}.conv1", f"{ours}/conv1", 3, inputs, width)
    yield from _norm(f"{theirs}.bn1", f"{ours}/bn1", width)
    yield from _conv(f"{theirs}.conv2", f"{ours}/conv2", 3, width, width)
    yield from _norm(f"{theirs}.bn2", f"{ours}/bn2", width)


def _bottleneck(theirs: str, ours: str, inputs: int, width: int) -> Iterator[Leaf]:
    sizes = ((1, inputs, width), (3, width, width), (1, width, 4 * width))
    for index, (kernel, conv_in, conv_out) in enumerate(sizes, start=1):
        yield from _conv(f"{theirs}.conv{index}", f"{ours}/conv{index}", kernel, conv_in, conv_out)
        yield from _norm(f"{theirs}.bn{index}", f"{ours}/bn{index}", conv_out)


def _resnet(arch: str, num_classes: int | None) -> Iterator[Leaf]:
    basic = arch in BASIC_BLOCKS
    yield from _conv("conv1", "conv1", 7, 3, 64)
    yield from _norm("bn1", "bn1", 64)
    channels = 64
    for stage, blocks in enumerate(RESNET_DEPTHS[arch], start=1):
        width = 64 * 2 ** (stage - 1)
        outputs = width if basic else 4 * width
        for index in range(blocks):
            theirs, ours = f"layer{stage}.{index}", f"layer{stage}_{index}"
            yield from (_basic_block if basic else _bottleneck)(theirs, ours, channels, width)
            if channels != outputs:  # only the first block of a stage changes shape, so only it projects
                yield from _conv(f"{theirs}.downsample.0", f"{ours}/downsample_conv", 1, channels, outputs)
                yield from _norm(f"{theirs}.downsample.1", f"{ours}/downsample_bn", outputs)
            channels = outputs
    if num_classes is not None:
        yield from _linear("fc", channels, num_classes)


def _densenet(arch: str, num_classes: int | None) -> Iterator[Leaf]:
    growth, bottleneck = 32, 128
    yield from _conv("features.conv0", "conv0", 7, 3, 64)
    yield from _norm("features.norm0", "norm0", 64)
    channels = 64
    for block, layers in enumerate(DENSENET_LAYERS[arch], start=1):
        for layer in range(1, layers + 1):
            theirs, ours = f"features.denseblock{block}.denselayer{layer}", f"block{block}_layer{layer}"
            yield from _norm(f"{theirs}.norm1", f"{ours}/norm1", channels)
            yield from _conv(f"{theirs}.conv1", f"{ours}/conv1", 1, channels, bottleneck)
            yield from _norm(f"{theirs}.norm2", f"{ours}/norm2", bottleneck)
            yield from _conv(f"{theirs}.conv2", f"{ours}/conv2", 3, bottleneck, growth)
            channels += growth
        if block < 4:
            theirs, ours = f"features.transition{block}", f"transition{block}"
            yield from _norm(f"{theirs}.norm", f"{ours}/norm", channels)
            yield from _conv(f"{theirs}.conv", f"{ours}/conv", 1, channels, channels // 2)
            channels //= 2
    yield from _norm("features.norm5", "norm5", channels)
    if num_classes is not None:
        yield from _linear("classifier", channels, num_classes)


@functools.cache
def leaves(arch: str, num_classes: int | None = 1000) -> tuple[Leaf, ...]:
    """Every array of a trunk in torchvision's order, without `num_batches_tracked`; None: without the head.

    Raises:
        KeyError: `arch` is not one of `ARCHITECTURES`.
    """
    if arch in RESNET_DEPTHS:
        return tuple(_resnet(arch, num_classes))
    if arch in DENSENET_LAYERS:
        return tuple(_densenet(arch, num_classes))
    raise KeyError(arch)


def head_name(arch: str) -> str:
    """Name of the classifying layer, the same in torchvision and here."""
    return "fc" if arch in RESNET_DEPTHS else "classifier"


def canonical_torch_name(name: str) -> str | None:
    """torchvision's present spelling of a state-dict key, or None for a counter that has no place here.

    Undoes the prefixes of DataParallel and torch.compile and DenseNet's spelling before 2018 (`norm.1`).
    """
    stripped = True
    while stripped:
        stripped = False
        for wrapper in _WRAPPERS:
            if name.startswith(wrapper):
                name, stripped = name[len(wrapper) :], True
    if name.endswith("num_batches_tracked"):
        return None
    return _OLD_DENSE_NAME.sub(r"\1\2\3.", name)


def canonical_state(state: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """A state dict under torchvision's present names, and the names that occurred under two spellings."""
    named: dict[str, np.ndarray] = {}
    repeated = []
    for raw, array in state.items():
        name = canonical_torch_name(raw)
        if name is None:
            continue
        if name in named:
            repeated.append(name)
        named[name] = array
    return named, tuple(repeated)


def _compare(
    expected: Mapping[str, tuple[int, ...]], found: Mapping[str, np.ndarray], repeated: Iterable[str] = ()
) -> NameReport:
    return NameReport(
        missing=tuple(name for name in expected if name not in found),
        unexpected=tuple(name for name in found if name not in expected),
        mismatched=tuple(
            ShapeMismatch(name, tuple(found[name].shape), shape)
            for name, shape in expected.items()
            if name in found and tuple(found[name].shape) != shape
        ),
        repeated=tuple(repeated),
    )


def _head_size(weight: np.ndarray | None, class_axis: int) -> int | None:
    """Classes of a head's weight; None without one. Misshapen counts as 1000 and is then reported."""
    if weight is None:
        return None
    return int(weight.shape[class_axis]) if weight.ndim == 2 else 1000


def from_torch(arch: str, state: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], NameReport]:
    """Flax arrays by path (`"params/conv1/kernel"`) from a torchvision state dict of `arch`.

    The number of classes is read from the head; a state dict without a head gives a trunk. The arrays are
    complete and right only if the report is `ok`; otherwise they are empty.
    """
    named, repeated = canonical_state(state)
    classes = _head_size(named.get(f"{head_name(arch)}.weight"), class_axis=0)
    table = leaves(arch, classes)
    report = _compare({leaf.torch_name: leaf.torch_shape for leaf in table}, named, repeated)
    if not report.ok:
        return {}, report
    return {leaf.path: leaf.from_torch(named[leaf.torch_name]) for leaf in table}, report


def to_torch(arch: str, flat: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], NameReport]:
    """The reverse of `from_torch`: torchvision's state dict from Flax arrays, and what does not fit."""
    classes = _head_size(flat.get(f"params/{head_name(arch)}/kernel"), class_axis=1)
    table = leaves(arch, classes)
    report = _compare({leaf.path: leaf.shape for leaf in table}, flat)
    if not report.ok:
        return {}, report
    return {leaf.torch_name: leaf.to_torch(flat[leaf.path]) for leaf in table}, report


def fitting_architecture(state: Mapping[str, np.ndarray]) -> str | None:
    """The trunk whose names and shapes a torchvision state dict has, or None: turns a refusal into a hint."""
    for arch in ARCHITECTURES:
        size = len(leaves(arch, None))
        named = sum(canonical_torch_name(name) is not None for name in state)
        if named - 2 <= size <= named and from_torch(arch, state)[1].ok:
            return arch
    return None


def parameter_count(arch: str, num_classes: int | None = 1000) -> int:
    """Trainable scalars of a trunk, running statistics not counted."""
    return sum(math.prod(leaf.shape) for leaf in leaves(arch, num_classes) if leaf.path.startswith("params/"))

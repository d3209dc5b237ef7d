"""One array under its two names, and the arrays of the usual layers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

Kind = Literal["conv", "linear", "vector", "square_conv"]
"""Which axes differ: convolution OIHW <-> HWIO, linear (out, in) <-> (in, out), everything else as it is;
`square_conv` is a matrix here and a 1x1 convolution there, (out, in, 1, 1) <-> (in, out)."""

_FROM_TORCH = {"conv": (2, 3, 1, 0), "linear": (1, 0)}
_TO_TORCH = {"conv": (3, 2, 0, 1), "linear": (1, 0)}


@dataclass(frozen=True)
class Leaf:
    """One array of a network under both of its names.

    Attributes:
        torch_name: key of the torch module's state dict.
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
        if self.kind == "square_conv":
            return (*self.shape[::-1], 1, 1)
        return tuple(self.shape[axis] for axis in _TO_TORCH.get(self.kind, range(len(self.shape))))

    def from_torch(self, array: np.ndarray) -> np.ndarray:
        if self.kind == "square_conv":
            return np.ascontiguousarray(array[:, :, 0, 0].T)
        return np.ascontiguousarray(array.transpose(_FROM_TORCH.get(self.kind, tuple(range(array.ndim)))))

    def to_torch(self, array: np.ndarray) -> np.ndarray:
        if self.kind == "square_conv":
            return np.ascontiguousarray(array.T[:, :, None, None])
        return np.ascontiguousarray(array.transpose(_TO_TORCH.get(self.kind, tuple(range(array.ndim)))))


def conv(
    torch_name: str,
    path: str,
    kernel: int | tuple[int, int],
    inputs: int,
    outputs: int,
    *,
    groups: int = 1,
    bias: bool = False,
) -> Iterator[Leaf]:
    """A convolution; `kernel` is the size of its window, a pair for (height, width)."""
    height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
    shape = (height, width, inputs // groups, outputs)
    yield Leaf(f"{torch_name}.weight", f"params/{path}/kernel", shape, "conv")
    if bias:
        yield vector(f"{torch_name}.bias", f"params/{path}/bias", outputs)


def conv_norm(
    conv_name: str,
    norm_name: str,
    path: str,
    kernel: int | tuple[int, int],
    inputs: int,
    outputs: int,
    *,
    groups: int = 1,
) -> Iterator[Leaf]:
    """A convolution without bias and its BatchNorm; ours are `<path>/conv` and `<path>/bn`."""
    yield from conv(conv_name, f"{path}/conv", kernel, inputs, outputs, groups=groups)
    yield from norm(norm_name, f"{path}/bn", outputs)


def norm(torch_name: str, path: str, channels: int) -> Iterator[Leaf]:
    """A batch normalisation with its running statistics."""
    yield from layer_norm(torch_name, path, channels)
    yield vector(f"{torch_name}.running_mean", f"batch_stats/{path}/mean", channels)
    yield vector(f"{torch_name}.running_var", f"batch_stats/{path}/var", channels)


def layer_norm(torch_name: str, path: str, channels: int) -> Iterator[Leaf]:
    """Scale and bias of a normalisation."""
    yield vector(f"{torch_name}.weight", f"params/{path}/scale", channels)
    yield vector(f"{torch_name}.bias", f"params/{path}/bias", channels)


def linear(torch_name: str, path: str, inputs: int, outputs: int) -> Iterator[Leaf]:
    """A linear layer with bias."""
    yield Leaf(f"{torch_name}.weight", f"params/{path}/kernel", (inputs, outputs), "linear")
    yield vector(f"{torch_name}.bias", f"params/{path}/bias", outputs)


def square_linear(torch_name: str, path: str, inputs: int, outputs: int) -> Iterator[Leaf]:
    """A linear layer here that is a 1x1 convolution with bias there."""
    yield Leaf(f"{torch_name}.weight", f"params/{path}/kernel", (inputs, outputs), "square_conv")
    yield vector(f"{torch_name}.bias", f"params/{path}/bias", outputs)


def vector(torch_name: str, path: str, size: int) -> Leaf:
    return Leaf(torch_name, path, (size,), "vector")

"""Our variables copied into a twin, every one of them and into every parameter."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from wbc_jax.weights.merge import flatten
from wbc_jax.weights.naming import to_torch

_RENAMED = (
    (r"(layer\d+)\.(\d+)", r"\1_\2"),
    (r"downsample\.0", "downsample_conv"),
    (r"downsample\.1", "downsample_bn"),
    (r"denseblock(\d+)\.denselayer(\d+)", r"block\1_layer\2"),
    (r"\bfeatures\.", ""),
    (r"\bge\.conv\b", "ge"),
)
"""torchvision's names of modules to ours; what is not here has the same name in a twin and in our network."""


def torchvision_state(arch: str, variables: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """State dict of torchvision's module from our variables, by the tables of `wbc_jax.weights.naming`."""
    state, report = to_torch(arch, {path: np.asarray(leaf) for path, leaf in flatten(variables).items()})
    if not report.ok:
        raise ValueError(f"not the variables of {arch}:\n" + "\n".join(report.lines()))
    return {name: torch.from_numpy(np.array(array)) for name, array in state.items()}


def copy_variables(twin: nn.Module, variables: Mapping[str, Any]) -> None:
    """Fills the twin in place.

    Raises:
        ValueError: a name or shape is in one and not in the other.
    """
    ours = flatten(variables)
    paths = {name: our_path(twin, name) for name in twin.state_dict() if "num_batches_tracked" not in name}
    if set(paths.values()) != set(ours):
        missing, unused = set(paths.values()) - set(ours), set(ours) - set(paths.values())
        raise ValueError(f"not the twin's variables: missing {sorted(missing)}, unused {sorted(unused)}")
    with torch.no_grad():
        state = twin.state_dict()
        for name, path in paths.items():
            array = _turned(np.asarray(ours[path]), state[name].ndim)
            if array.shape != tuple(state[name].shape):
                raise ValueError(
                    f"{path} has shape {array.shape}, the twin's {name} {tuple(state[name].shape)}"
                )
            state[name].copy_(torch.from_numpy(np.array(array)))


def our_path(twin: nn.Module, name: str) -> str:
    """`params/layer1_0/bn1/scale` for `layer1.0.bn1.weight`."""
    module, _, leaf = name.rpartition(".")
    is_norm = isinstance(twin.get_submodule(module), nn.modules.batchnorm._BatchNorm)
    collection = "batch_stats" if leaf.startswith("running_") else "params"
    leaf = {
        "weight": "scale" if is_norm else "kernel",
        "running_mean": "mean",
        "running_var": "var",
    }.get(leaf, leaf)
    for theirs, ours in _RENAMED:
        module = re.sub(theirs, ours, module)
    return f"{collection}/{module.replace('.', '/')}/{leaf}"


def _turned(array: np.ndarray, ndim: int) -> np.ndarray:
    """Kernels and matrices in torch's order of axes; a gate's matrix is a 1x1 convolution there."""
    if array.ndim == 4:
        return array.transpose(3, 2, 0, 1)
    if array.ndim == 2:
        return array.T if ndim == 2 else array.T[:, :, None, None]
    return array

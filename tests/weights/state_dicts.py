"""State dicts with the names and shapes of torchvision's own modules, without building the modules."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch_reference import torchvision_models


@functools.cache
def torchvision_shapes(arch: str, num_classes: int = 1000) -> dict[str, tuple[int, ...]]:
    """Names and shapes of torchvision's state dict, counters included."""
    with torch.device("meta"):
        module = getattr(torchvision_models(), arch)(num_classes=num_classes)
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}


def counting_state(arch: str, num_classes: int = 1000) -> dict[str, np.ndarray]:
    """A state dict in which nearly every scalar differs from its neighbours, so any wrong order shows."""
    state = {}
    for index, (name, shape) in enumerate(torchvision_shapes(arch, num_classes).items()):
        if name.endswith("num_batches_tracked"):
            state[name] = np.asarray(7, dtype=np.int64)
        else:
            size = int(np.prod(shape))
            state[name] = (np.arange(size, dtype=np.float32) / np.float32(size) + np.float32(index)).reshape(
                shape
            )
    return state


def without_counters(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: array for name, array in state.items() if not name.endswith("num_batches_tracked")}

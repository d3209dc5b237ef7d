"""torchvision's networks, also next to a build of torch that its compiled operators do not fit."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import torch

_declared: list[Any] = []  # a torch.library.Library withdraws its operators when it is collected


def torchvision_models() -> ModuleType:
    """`torchvision.models`.

    Its import fails next to a foreign build of torch because it registers shapes for operators that nobody declared.
    The networks need none of them, so declaring the two names is enough.

    Raises:
        ImportError: torchvision is not installed.
    """
    try:
        import torchvision.models as models
    except RuntimeError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _declared.append(library)
        import torchvision.models as models
    return models

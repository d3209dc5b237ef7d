"""torchvision's modules as the independent reference, also next to a CPU-only build of torch.

`import torchvision` fails where its compiled operators do not fit the installed torch (PyPI's wheel next to a
CPU-only torch), because it registers shapes for operators that nobody declared. The model definitions need
none of them, so declaring the two names is enough.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

_declared = []  # a torch.library.Library withdraws its operators when it is collected


def torchvision_models() -> ModuleType:
    """The module `torchvision.models`; raises ImportError where torch or torchvision is not installed."""
    import torch

    try:
        return importlib.import_module("torchvision.models")
    except RuntimeError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _declared.append(library)
        return importlib.import_module("torchvision.models")

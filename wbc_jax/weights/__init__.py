"""Weights files: torchvision names to Flax paths and back, safe readers, download with digest.

The public names are loaded on first use, so that `import wbc_jax.weights` stays free of I/O libraries.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wbc_jax.weights.download import fetch, fetch_pretrained
    from wbc_jax.weights.load import (
        convert_torchvision,
        load_pretrained_into,
        load_variables,
        read_metadata,
        save_variables,
        to_torchvision,
    )
    from wbc_jax.weights.merge import MergeReport, merge_pretrained

_HOME = {
    "MergeReport": "merge",
    "convert_torchvision": "load",
    "fetch": "download",
    "fetch_pretrained": "download",
    "load_pretrained_into": "load",
    "load_variables": "load",
    "merge_pretrained": "merge",
    "read_metadata": "load",
    "save_variables": "load",
    "to_torchvision": "load",
}

__all__ = [
    "MergeReport",
    "convert_torchvision",
    "fetch",
    "fetch_pretrained",
    "load_pretrained_into",
    "load_variables",
    "merge_pretrained",
    "read_metadata",
    "save_variables",
    "to_torchvision",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

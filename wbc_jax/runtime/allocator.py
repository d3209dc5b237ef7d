"""The C library's allocator, told to keep what a training step on a CPU frees."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import platform

_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8  # numbers of glibc's malloc.h
_ACCELERATORS = ("jax_plugins", "libtpu")

_kept: list[bool] = []
"""Whether glibc took it, once for each time that it was told."""


def keep_freed_memory() -> bool:
    """Have glibc keep freed memory for the next step; before the first thread starts. Returns whether it does now.

    XLA asks for the maps of a step in one block of memory and frees it afterwards. glibc gives so large a block back
    to the system, which clears each of its pages anew at the next step. The process then stays as large as it was at
    its largest, or somewhat larger where other blocks have come to lie between.

    Left as it is where there is no glibc, where an accelerator's plugin is installed (its maps are not in this
    memory), and where GLIBC_TUNABLES or MALLOC_* variables already say something about it.
    """
    chosen = "glibc.malloc." in os.environ.get("GLIBC_TUNABLES", "") or any(
        name.startswith("MALLOC_") for name in os.environ
    )
    if platform.libc_ver()[0] != "glibc" or chosen or any(map(importlib.util.find_spec, _ACCELERATORS)):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # One arena: the others ask the system for each large block, whatever else they are told.
    settings = (_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1)
    _kept.append(all(mallopt(*setting) for setting in settings))
    return _kept[-1]


def allocation() -> str | None:
    """How memory is allocated in this process, where that was chosen: provenance of a measurement."""
    return "freed memory kept" if any(_kept) else os.environ.get("GLIBC_TUNABLES")

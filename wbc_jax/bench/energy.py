"""Energy that the device has used, where the machine tells: NVIDIA's counter for a GPU, RAPL for a processor."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Mapping
from pathlib import Path

Meter = Callable[[], float]
"""Joules since some moment in the past."""

_RAPL = Path("/sys/class/powercap")


def energy_meter(backend: str) -> Meter | None:
    """The meter of this machine's first device; None where it has none that this user may read."""
    if backend == "gpu":
        return _nvidia_meter()
    return rapl_meter(_RAPL) if backend == "cpu" else None


def first_gpu(environment: Mapping[str, str] | None = None) -> str:
    """The GPU that this process's device 0 is, as the driver's tools take it: an index, or a UUID.

    Args:
        environment: None: this process's. `CUDA_VISIBLE_DEVICES` says which GPUs it sees, in which order.
    """
    seen = (os.environ if environment is None else environment).get("CUDA_VISIBLE_DEVICES", "")
    return seen.partition(",")[0].strip() or "0"


def rapl_meter(root: Path) -> Meter | None:
    """Sum over the processor packages below `root`; most systems let only root read it.

    The counters start again at 0 after some kilojoules. A chain during which one does is told by a negative
    difference.
    """
    files = sorted(path / "energy_uj" for path in root.glob("intel-rapl:*") if path.name.count(":") == 1)

    def read() -> float:
        return sum(int(file.read_text()) for file in files) / 1e6

    try:
        return read if files and read() > 0 else None
    except (OSError, ValueError):
        return None


def _nvidia_meter() -> Meter | None:
    """The GPU's counter since the driver was loaded, through the driver's own library; Volta and later."""
    gpu, handle, millijoules = first_gpu(), ctypes.c_void_p(), ctypes.c_ulonglong()
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
        if nvml.nvmlInit_v2():
            return None
        if gpu.isdecimal():
            failed = nvml.nvmlDeviceGetHandleByIndex_v2(int(gpu), ctypes.byref(handle))
        else:
            failed = nvml.nvmlDeviceGetHandleByUUID(gpu.encode(), ctypes.byref(handle))
        if failed or nvml.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(millijoules)):
            return None
    except (OSError, AttributeError):
        return None

    def read() -> float:
        nvml.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(millijoules))
        return millijoules.value / 1e3

    return read

"""Energy that the device has used, where the machine tells: NVIDIA's counter for a GPU, RAPL for a processor."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

Meter = Callable[[], float]
"""Joules since some moment in the past."""

_RAPL = Path("/sys/class/powercap")


def energy_meter(backend: str) -> Meter | None:
    """The meter of this machine's first device; None where it has none that this user may read."""
    if backend == "gpu":
        return _nvidia_meter()
    return rapl_meter(_RAPL) if backend == "cpu" else None


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
    """GPU 0's counter since the driver was loaded, through the driver's own library; Volta and later."""
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
        handle, millijoules = ctypes.c_void_p(), ctypes.c_ulonglong()
        if nvml.nvmlInit_v2() or nvml.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(handle)):
            return None
        if nvml.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(millijoules)):
            return None
    except (OSError, AttributeError):
        return None

    def read() -> float:
        nvml.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(millijoules))
        return millijoules.value / 1e3

    return read

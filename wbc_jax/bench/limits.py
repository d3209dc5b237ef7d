"""What a device's memory and arithmetic allow: known figures for accelerators, a measured copy for a CPU."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import numpy as np

from wbc_jax.bench.schema import Machine
from wbc_jax.bench.traffic import Traffic
from wbc_jax.errors import UsageError

_KNOWN = {"H200": (4.3e12, 790e12), "H100": (3.0e12, 798e12)}
"""Achievable, not nominal: bytes/s, and FLOP/s in bfloat16; of the SXM modules."""
_NAMES = {"NVIDIA H200": "H200", "NVIDIA H100 80GB HBM3": "H100"}
"""As the driver calls them. Others that bear these names, GH200, H100 PCIe, H200 NVL, parts of a GPU, are others."""
_COPY_BYTES = 256 << 20
_COPIES = 5


@dataclass(frozen=True)
class Limits:
    """Of one device; None where unknown.

    Attributes:
        bytes_per_s: memory traffic, reads plus writes.
        flops_per_s: in the precision of the measurement.
    """

    bytes_per_s: float | None
    flops_per_s: float | None

    def traffic_percent(self, images_per_s: float, traffic: Traffic) -> float | None:
        """Share of the traffic limit that a rate is, percent."""
        if self.bytes_per_s is None:
            return None
        return 100.0 * images_per_s * traffic.total_bytes / self.bytes_per_s

    def mfu_percent(self, images_per_s: float, traffic: Traffic) -> float | None:
        """Share of the peak arithmetic rate, percent."""
        return None if self.flops_per_s is None else 100.0 * images_per_s * traffic.flops / self.flops_per_s


def device_limits(machine: Machine, precision: str) -> Limits:
    """Limits of the machine's device; for a CPU the bandwidth is measured, once a process, in half a second."""
    if machine.backend == "cpu":
        return Limits(measure_copy_bandwidth(machine.threads), None)
    name = _NAMES.get(machine.device)
    if name is None:
        return Limits(None, None)
    bytes_per_s, flops_per_s = _KNOWN[name]
    return Limits(bytes_per_s, flops_per_s if precision == "bfloat16" else None)


def known_bandwidth(device: str) -> float:
    """Bytes/s of an accelerator by its name.

    Raises:
        UsageError: nobody has entered its figure.
    """
    if device not in _KNOWN:
        raise UsageError(
            f"no memory bandwidth is known of {device!r}",
            expected=f"one of {', '.join(_KNOWN)}",
            where="--device",
            remedy="give the rate itself: --images-per-s",
        )
    return _KNOWN[device][0]


@cache
def measure_copy_bandwidth(threads: int) -> float:
    """Bytes/s, read plus written, of numpy copying 256 MiB, a part in each thread; the best of five copies.

    A store that misses the cache may also read the line first, which is not counted, so a plain copy underrates
    what the memory can do and shares of this limit look larger by up to a half.
    """
    source = np.ones(_COPY_BYTES // 8)
    target = np.zeros_like(source)
    parts = list(zip(np.array_split(source, threads), np.array_split(target, threads), strict=True))
    best = np.inf
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(_COPIES):
            start = time.perf_counter()
            list(pool.map(lambda pair: np.copyto(pair[1], pair[0]), parts))  # numpy lets go of the lock
            best = min(best, time.perf_counter() - start)
    return 2 * source.nbytes / best

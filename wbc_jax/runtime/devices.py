"""The devices of a run: a mesh of one axis, and a description of the machine for records."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from wbc_jax.config import Precision
from wbc_jax.errors import UsageError
from wbc_jax.train.parallel import data_mesh


def make_mesh(num_devices: int | None = None) -> Mesh:
    """A mesh with the one axis `data` over the first `num_devices` devices; None: all.

    Raises:
        UsageError: fewer devices are there.
    """
    devices = jax.devices()
    count = len(devices) if num_devices is None else num_devices
    if not 1 <= count <= len(devices):
        raise UsageError(
            f"{num_devices} devices are asked for, {len(devices)} are there ({devices[0].device_kind})",
            expected=f"1 to {len(devices)}",
            where="runtime.num_devices",
            remedy="leave it out to use all devices",
        )
    return data_mesh(devices[:count])


def activation_dtype(precision: Precision) -> Any:
    """Type of activations; auto: bfloat16 on GPU and TPU, float32 on CPU, which has no fast bfloat16."""
    if precision == "auto":
        return jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    return {"float32": jnp.float32, "bfloat16": jnp.bfloat16}[precision]


def describe_device() -> dict[str, Any]:
    """backend, kind, count, memory_bytes (a device's; on CPU the machine's; None: unknown), platform_version."""
    devices = jax.devices()
    return {
        "backend": jax.default_backend(),
        "kind": _kind(devices[0]),
        "count": len(devices),
        "memory_bytes": _memory_bytes(devices[0]),
        "platform_version": " ".join(devices[0].client.platform_version.split()),
    }


def _kind(device: Any) -> str:
    if device.platform != "cpu":
        return device.device_kind
    import platform

    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def _memory_bytes(device: Any) -> int | None:
    if device.platform == "cpu":
        import psutil

        return psutil.virtual_memory().total
    stats = device.memory_stats()
    return stats["bytes_limit"] if stats and "bytes_limit" in stats else None

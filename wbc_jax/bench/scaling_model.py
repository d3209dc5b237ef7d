"""How a training step spreads over many accelerators, on paper: step time, gradient bytes, links. Pure arithmetic.

A step of data-parallel training computes on its own share of the batch, adds up gradients over all devices, and, where
BatchNorm statistics are those of the whole batch, adds up two small vectors per norm forward and two backward.

    gradients   in a host a reduce-scatter and an all-gather, 2 (d - 1) / d M bytes over a device's link; between hosts
                each device carries its d-th part, 2 (h - 1) / h M / d bytes over its network adapter
    small sums  latency alone, as NCCL's tuning model has it for a tree (NVIDIA/nccl, src/graph/tuning.cc):
                6.8 us + 2 (0.6 us (d - 1) + 5 us log2 h)

with d devices in a host and h hosts. Gradients are sent while the backward pass, two thirds of the step, still
computes; a share of that time hides them. The sums of BatchNorm hide behind nothing: each waits for the one before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from wbc_jax.models.layers import BatchNorm


@dataclass(frozen=True)
class Network:
    """What of a network matters for scaling.

    Attributes:
        name: of the network.
        gradient_bytes: of one step, float32.
        norms: BatchNorm layers.
    """

    name: str
    gradient_bytes: int
    norms: int


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Hosts of equal accelerators.

    Attributes:
        devices_per_host: accelerators in one host.
        link_gb_per_s: one device to the others of its host, one direction. NVLink 4: 450 nominal.
        network_gb_per_s: one device's adapter, one direction. 400 Gb/s InfiniBand: 50 nominal.
        efficiency: share of both that large transfers reach.
        base_us, link_us, network_us: latency of a small sum, of a hop in a host, of a hop between hosts.
        hidden_share: share of the backward pass behind which gradients can hide.
    """

    devices_per_host: int = 8
    link_gb_per_s: float = 450.0
    network_gb_per_s: float = 50.0
    efficiency: float = 0.8
    base_us: float = 6.8
    link_us: float = 0.6
    network_us: float = 5.0
    hidden_share: float = 0.8

    def split(self, devices: int) -> tuple[int, int]:
        """(devices in a host, hosts) that so many devices occupy."""
        inside = min(devices, self.devices_per_host)
        return inside, math.ceil(devices / inside)

    def gradient_s(self, devices: int, gradient_bytes: int) -> float:
        """Seconds to add up gradients over all devices, nothing hidden."""
        inside, hosts = self.split(devices)
        link = 2 * (inside - 1) / inside * gradient_bytes / (1e9 * self.link_gb_per_s * self.efficiency)
        part = gradient_bytes / inside
        network = 2 * (hosts - 1) / hosts * part / (1e9 * self.network_gb_per_s * self.efficiency)
        return link + network

    def small_sum_s(self, devices: int) -> float:
        """Seconds to add up some numbers over all devices."""
        if devices == 1:
            return 0.0
        inside, hosts = self.split(devices)
        return 1e-6 * (self.base_us + 2 * (self.link_us * (inside - 1) + self.network_us * math.log2(hosts)))


@dataclass(frozen=True)
class Scaled:
    """A step on many devices.

    Attributes:
        devices: their number.
        batch_per_device: images.
        compute_s, exposed_gradient_s, norm_s: parts of the step: computing, gradients that computing does not hide,
            sums of BatchNorm statistics.
    """

    devices: int
    batch_per_device: int
    compute_s: float
    exposed_gradient_s: float
    norm_s: float

    @property
    def step_s(self) -> float:
        return self.compute_s + self.exposed_gradient_s + self.norm_s

    @property
    def images_per_s(self) -> float:
        return self.devices * self.batch_per_device / self.step_s


def scale(
    network: Network,
    cluster: Cluster,
    *,
    devices: int,
    batch_per_device: int,
    images_per_s: float,
    overhead_s: float = 0.0,
    global_norm: bool = True,
) -> Scaled:
    """A step of so many images on each device.

    Args:
        network: what is trained.
        cluster: on what.
        devices: accelerators in all.
        batch_per_device: images on each.
        images_per_s: one device's rate without the overhead.
        overhead_s: part of a step that does not shrink with the batch, such as launches of small kernels.
        global_norm: BatchNorm statistics over the whole batch; False: within each device (ghost BatchNorm).
    """
    compute = overhead_s + batch_per_device / images_per_s
    gradient = cluster.gradient_s(devices, network.gradient_bytes)
    hidden = cluster.hidden_share * compute * 2 / 3
    sums = 2 * network.norms if global_norm else 0
    return Scaled(
        devices=devices,
        batch_per_device=batch_per_device,
        compute_s=compute,
        exposed_gradient_s=max(0.0, gradient - hidden) if devices > 1 else 0.0,
        norm_s=sums * cluster.small_sum_s(devices),
    )


def network_of(name: str, model: nn.Module, image_size_px: int = 224) -> Network:
    """Counts a network's parameters and norms from its shapes; nothing is computed."""
    norms = 0

    def count(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        nonlocal norms
        norms += isinstance(context.module, BatchNorm) and context.method_name == "__call__"
        return call(*args, **kwargs)

    images = jax.ShapeDtypeStruct((1, image_size_px, image_size_px, 3), jnp.float32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    with nn.intercept_methods(count):
        variables = jax.eval_shape(lambda key, x: model.init(key, x, train=False), key, images)
    parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))
    return Network(name, 4 * parameters, norms)

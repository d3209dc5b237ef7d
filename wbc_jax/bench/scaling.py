"""`benchmark scaling`: training steps on one device, two, four …, and what the model says of 8 and 256 accelerators.

On a CPU the devices are virtual and share its cores: that shows that the machinery works and what it costs, not how
fast several processors are.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from wbc_jax.bench.limits import known_bandwidth
from wbc_jax.bench.options import ModelOptions
from wbc_jax.bench.scaling_model import Cluster, Network, Scaled, network_of, scale
from wbc_jax.bench.schema import Machine, Row, append_rows, describe_machine
from wbc_jax.bench.step import case_columns, make_cases, subject_columns
from wbc_jax.bench.table import print_rows
from wbc_jax.bench.timing import Timing, interquartile_range, paired_ratios, time_interleaved
from wbc_jax.bench.traffic import count_traffic
from wbc_jax.errors import EXIT_OK, UsageError

_HEADINGS = (
    *("network", "MB gradients", "norms", "img/s alone", "devices"),
    *("weak, global BN", "weak, ghost BN", "strong, global BN", "strong, ghost BN"),
)


@dataclass(frozen=True, kw_only=True)
class ScalingOptions(ModelOptions):
    """Steps on several devices of this machine; the whole batch is `batch_size` times the devices."""

    models: tuple[str, ...] = ("resnet_tiny",)
    """Networks by name; `wbc_jax.models.list_models()` lists all."""
    image_size_px: int = 64
    """Side of the images, px."""
    devices: tuple[int, ...] = (1, 2, 4)
    """Numbers of devices; where a CPU has fewer they are made virtually."""


@dataclass(frozen=True, kw_only=True)
class ScalingModelOptions:
    """The model on paper; nothing is measured."""

    models: tuple[str, ...] = ("resnet50", "scam", "daffnet", "amnet")
    """Networks by name; `wbc_jax.models.list_models()` lists all."""
    devices: tuple[int, ...] = (1, 8, 64, 256)
    """Numbers of accelerators."""
    batch_per_device: int = 256
    """Images on each device in weak scaling, and on a host of 8 times 8 in strong scaling."""
    images_per_s: float | None = None
    """Rate of one device; None: `traffic_percent` of its traffic limit."""
    traffic_percent: float = 50.0
    """Share of the traffic limit that one device is assumed to reach, percent."""
    device: str = "H200"
    """Accelerator whose memory bandwidth gives the limit: H100 or H200."""
    overhead_ms: float = 2.0
    """Part of a step that does not shrink with the batch, ms; an assumption."""
    link_gb_per_s: float = Cluster.link_gb_per_s
    """One device to the others of its host, one direction, GB/s."""
    network_gb_per_s: float = Cluster.network_gb_per_s
    """One device's network adapter, one direction, GB/s."""


def run_scaling(options: ScalingOptions) -> int:
    """Measure training steps on several devices, the share of each held, in turns."""
    options.check()
    _make_virtual_devices(max(options.devices))
    import jax

    if max(options.devices) > jax.device_count() or min(options.devices) < 1:
        raise UsageError(
            f"--devices {' '.join(map(str, options.devices))}",
            expected=f"numbers from 1 to {jax.device_count()}, the devices of this machine",
            where="wbc-jax benchmark scaling",
        )
    machine = describe_machine()
    rows: list[Row] = []
    for case in make_cases(options):
        measured = _measure(case, options, machine)
        rows += measured
        if options.out is not None:
            append_rows(options.out, machine, measured)
    print_rows(machine, rows)
    return EXIT_OK


def _make_virtual_devices(count: int) -> None:
    """Has an effect only before jax computes, on the CPU backend, and where XLA_FLAGS does not settle the number."""
    import jax

    if "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    # After jax has started what devices there are is settled.
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", count)


def _measure(case: Any, options: ScalingOptions, machine: Machine) -> list[Row]:
    from wbc_jax.bench.subject import TrainSubject

    cases = {
        count: replace(case, batch_size=count * case.batch_size, device_count=count)
        for count in dict.fromkeys((1, *options.devices))
    }
    subjects = {count: TrainSubject(many) for count, many in cases.items()}
    timings = time_interleaved(
        {str(count): subject.run for count, subject in subjects.items()},
        warmup_steps=options.warmup_steps,
        timed_steps=options.steps(),
        repeats=options.repeats,
    )
    alone = timings["1"]
    rows = []
    for count, many in cases.items():
        own = timings[str(count)]
        work = Timing(tuple(seconds / count for seconds in own.step_seconds))  # seconds per `case.batch_size`
        beside = {
            "peer": "1 device",
            "peer_images_per_s": case.batch_size / alone.median,
            "peer_iqr_ms": 1e3 * alone.iqr,
            "ratio": alone.median / work.median,
            "ratio_iqr": interquartile_range(paired_ratios(work, alone)),
        }
        rows.append(
            Row(
                benchmark="scaling",
                data_mode="synthetic-fixed",
                devices=count,
                images_per_s=many.batch_size / own.median,
                step_ms=1e3 * own.median,
                iqr_ms=1e3 * own.iqr,
                warmup_steps=options.warmup_steps,
                timed_steps=options.steps(),
                repeats=options.repeats,
                **case_columns(many),
                **subject_columns(subjects[count], many),
                **({} if count == 1 else beside),
            )
        )
    return rows


def run_scaling_model(options: ScalingModelOptions) -> int:
    """Print what the model says of weak and strong scaling on many accelerators."""
    problems = [
        f"--{name.replace('_', '-')} {getattr(options, name)}: above 0"
        for name in ("batch_per_device", "traffic_percent", "link_gb_per_s", "network_gb_per_s")
        if getattr(options, name) <= 0
    ]
    if min(options.devices) < 1:
        problems.append(f"--devices {min(options.devices)}: at least 1")
    if problems:
        raise UsageError("\n".join(problems), where="wbc-jax benchmark scaling-model")
    print("\n".join(model_lines(options)))
    return EXIT_OK


def model_lines(options: ScalingModelOptions) -> Iterator[str]:
    """A Markdown table: per network and number of devices, weak and strong scaling, global and ghost BatchNorm."""
    from wbc_jax.models import create_model

    cluster = Cluster(link_gb_per_s=options.link_gb_per_s, network_gb_per_s=options.network_gb_per_s)
    yield f"| {' | '.join(_HEADINGS)} |"
    yield "|---" * len(_HEADINGS) + "|"
    for name in options.models:
        model: Any = create_model(name, num_classes=5)
        network = network_of(name, model)
        rate = options.images_per_s or _assumed_rate(model, options)
        head = f"| {name} | {network.gradient_bytes / 1e6:.0f} | {network.norms} | {rate:,.0f} "
        for count in options.devices:
            cells = [f"{cell:.0%}" for cell in efficiencies(network, cluster, count, rate, options)]
            yield f"{head}| {count} | {' | '.join(cells)} |"
            head = "| | | | "


def efficiencies(
    network: Network, cluster: Cluster, devices: int, rate: float, options: ScalingModelOptions
) -> Sequence[float]:
    """Share of `devices` times one device's rate: weak and strong scaling, each with global and ghost BatchNorm."""
    whole = 8 * options.batch_per_device  # strong scaling: the batch of a host of eight
    shares = (options.batch_per_device, max(1, whole // devices))
    alone = _step(network, cluster, 1, options.batch_per_device, rate, options, True)
    return [
        _step(network, cluster, devices, share, rate, options, norm).images_per_s
        / (devices * alone.images_per_s)
        for share in shares
        for norm in (True, False)
    ]


def _step(
    network: Network,
    cluster: Cluster,
    devices: int,
    share: int,
    rate: float,
    options: ScalingModelOptions,
    global_norm: bool,
) -> Scaled:
    return scale(
        network,
        cluster,
        devices=devices,
        batch_per_device=share,
        images_per_s=rate,
        overhead_s=options.overhead_ms / 1e3,
        global_norm=global_norm,
    )


def _assumed_rate(model: Any, options: ScalingModelOptions) -> float:
    """Images/s of one device without overhead, at the assumed share of its traffic limit, bfloat16."""
    traffic = count_traffic(model, 224, "train", 2)
    return options.traffic_percent / 100 * known_bandwidth(options.device) / traffic.total_bytes

"""The one CSV schema of all benchmarks, and where a row's facts about code and machine come from."""

from __future__ import annotations

import dataclasses
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from wbc_jax.bench.energy import first_gpu
from wbc_jax.bench.result_file import append_values, check_columns
from wbc_jax.errors import UsageError
from wbc_jax.runtime.allocator import allocation
from wbc_jax.runtime.cpus import usable_cpus


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Code and machine of a measurement: the columns that all rows of a process share."""

    date: str
    """UTC, ISO 8601."""
    commit: str | None
    """Of the checkout; `+changes` when files differ from it."""
    device: str
    """Processor or accelerator that ran the steps."""
    device_detail: str
    """Driver, power limit and clocks of a GPU; operating system of a CPU."""
    backend: str
    """cpu, gpu or tpu."""
    threads: int
    """CPU threads that this process may use."""
    load_average: float | None
    """Processes that wanted a CPU in the minute before; CPU rates measured beside others' work mean little."""
    xla_flags: str
    """XLA_FLAGS; behind them, without dashes, the options that networks are compiled with."""
    versions: str


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measurement; None where a column does not apply or is not known. Units are in the names."""

    benchmark: str
    """step, input, end-to-end, compare, frozen, probe, predict or memory."""
    model: str
    """Network; for `input` and `memory` what was run."""
    mode: str
    """train or infer; stream, resident or augment; prepare, train, predict or import."""
    data_mode: str
    """synthetic-fixed, device-resident, streaming or files."""
    precision: str
    """Type of activations."""
    batch_size: int | None
    image_size_px: int | None
    images_per_s: float | None
    """From the median repeat."""
    step_ms: float | None
    """Median over the repeats."""
    iqr_ms: float | None
    """Distance between the quartiles of the repeats, per step."""
    warmup_steps: int | None
    timed_steps: int | None
    """Per repeat."""
    repeats: int | None
    compile_s: float | None = None
    """Trace, lower and compile; None where the program came from the persistent cache, which a row of `startup` named
    warm is about. On an accelerator steps that are measured together are compiled at the same time, and a cache may
    hold kernels that were tried for another program."""
    peak_memory_gib: float | None = None
    """Arrays and scratch space of the compiled step, or for `memory` the process's largest resident size."""
    gflop_per_image: float | None = None
    mb_per_image: float | None = None
    """Memory traffic by the counting rules, MB of 1e6 bytes."""
    traffic_limit_percent: float | None = None
    """images_per_s over what the memory's bandwidth allows."""
    bandwidth_gb_per_s: float | None = None
    """Behind traffic_limit_percent: known for the device, or for a CPU measured by copying."""
    mfu_percent: float | None = None
    """FLOPs over the device's peak."""
    loss_first: float | None = None
    loss_after: float | None = None
    """After all steps of the measurement."""
    peer: str | None = None
    """What it is compared with, measured in turns with it."""
    peer_images_per_s: float | None = None
    peer_iqr_ms: float | None = None
    peer_loss_after: float | None = None
    ratio: float | None = None
    """images_per_s over peer_images_per_s."""
    ratio_iqr: float | None = None
    """Distance between the quartiles of the ratios of paired repeats."""
    input_overhead_percent: float | None = None
    """Time per step above that on a fixed synthetic batch."""
    images: int | None = None
    """For `memory`: images prepared, trained on or classified; for `predict`: files there are."""
    wall_s: float | None = None
    variant: str | None = None
    """Form of the step that differs from the default, such as `pointwise=dot` or `cached`."""
    devices: int | None = None
    """Devices that shared the step, where there were several."""
    xla_gflop_per_image: float | None = None
    xla_mb_per_image: float | None = None
    """XLA's own cost analysis beside our counts; it counts calls of libraries such as cuDNN as nothing."""
    joules_per_image: float | None = None
    """Of the device, all that it used while the steps ran."""
    peer_joules_per_image: float | None = None
    glibc_tunables: str | None = dataclasses.field(default_factory=allocation)
    """How memory was allocated, where that was chosen."""


def columns_of(kind: type[Row]) -> tuple[str, ...]:
    """Columns of a CSV of such rows: a benchmark with figures of its own extends `Row`, and has its own file."""
    return tuple(f.name for part in (Machine, kind) for f in dataclasses.fields(part))


COLUMNS: tuple[str, ...] = columns_of(Row)


def describe_machine() -> Machine:
    """Facts of this process; starts the jax backend."""
    from wbc_jax.runtime.provenance import collect_provenance

    facts = collect_provenance()
    commit, backend = facts["commit"], facts["device"]["backend"]
    return Machine(
        date=facts["started"],
        commit=f"{commit}+changes" if facts["dirty"] else commit,
        device=facts["device"]["kind"],
        device_detail=_gpu_detail() if backend == "gpu" else platform.platform(),
        backend=backend,
        threads=usable_cpus(),
        load_average=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        xla_flags=_xla_flags(facts["xla_flags"] or ""),
        versions=_versions(facts["versions"], facts["python"]),
    )


def append_rows(path: Path, machine: Machine, rows: Sequence[Row]) -> None:
    """Adds rows of one kind to a CSV file, as `append_values` does."""
    columns = columns_of(type(rows[0]) if rows else Row)
    append_values(path, columns, [dataclasses.asdict(machine) | dataclasses.asdict(row) for row in rows])


def check_out(path: Path | None, columns: tuple[str, ...] = COLUMNS) -> None:
    """UsageError where rows of these columns cannot be added to the file: known before minutes go into measuring."""
    if path is None:
        return
    if path.is_dir():
        raise UsageError("--out is a folder", expected="a CSV file", where=str(path))
    check_columns(path, columns)


def _xla_flags(environment: str) -> str:
    from wbc_jax.models.compiler import compiler_options

    options = [f"{name}={value}" for name, value in compiler_options().items()]
    return " ".join([*environment.split(), *options])


def _versions(installed: dict[str, str | None], python: str) -> str:
    names = ("torch", "torchvision")
    found = {**installed, **{name: _version(name) for name in names}, "python": python}
    return "; ".join(f"{name} {version}" for name, version in found.items() if version is not None)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _gpu_detail() -> str:
    fields = ("driver_version", "power.limit", "clocks.max.sm", "clocks.max.mem")
    query = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader", f"--id={first_gpu()}"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    values = [value.strip() for value in done.stdout.split(",")]
    return "; ".join(f"{name} {value}" for name, value in zip(fields, values, strict=False))

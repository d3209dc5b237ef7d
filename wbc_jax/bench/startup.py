"""`benchmark startup`: from the command to the end of the first training step, in fresh processes, cold and warm.

Cold: nothing is compiled. Warm: a process before it left its compiled programs in a cache. On a CPU there is no warm
row: programs read back from the cache can hang there, so the package does not use it either.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wbc_jax.bench.options import ModelOptions, Precision, on_cpu
from wbc_jax.bench.schema import Row, append_rows, describe_machine
from wbc_jax.bench.step import case_columns, make_cases
from wbc_jax.bench.table import print_rows
from wbc_jax.errors import EXIT_OK, UsageError

_CHILD = "import sys; from wbc_jax.bench.startup import start_once; start_once(sys.argv[1])"


@dataclass(frozen=True, kw_only=True)
class StartupOptions:
    """Processes that stop after their first step."""

    models: tuple[str, ...] = ("resnet50",)
    """Networks by name; `wbc_jax.models.list_models()` lists all."""
    precision: Precision = "auto"
    """Type of activations; auto: bfloat16 on accelerators, float32 on CPU."""
    batch_size: int | None = None
    """Images per step; None: 8 on a CPU, 256 on accelerators."""
    image_size_px: int = 224
    """Side of the images, px."""
    num_classes: int = 5
    """Outputs of the head."""
    repeats: int = 3
    """Processes of each kind; the median counts."""
    out: Path | None = None
    """CSV file that rows are added to; None: they are only printed."""

    def as_model_options(self) -> ModelOptions:
        """What the processes are told, checked."""
        options = ModelOptions(
            models=self.models,
            precision=self.precision,
            batch_size=self.batch_size,
            image_size_px=self.image_size_px,
            num_classes=self.num_classes,
            repeats=self.repeats,
            out=self.out,
        )
        options.check()
        return options


def run_startup(options: StartupOptions) -> int:
    """Measure how long a training takes from the command to the end of its first step."""
    cases = make_cases(options.as_model_options())
    machine = describe_machine()
    rows: list[Row] = []
    for case in cases:
        told = {
            "models": [case.model_name],
            "precision": case_columns(case)["precision"],
            "batch_size": case.batch_size,
            "image_size_px": case.image_size_px,
            "num_classes": case.num_classes,
        }
        for mode, found in _processes(told, options.repeats):
            phases = {name: statistics.median(one[name] for one in found) for name in found[0]}
            shown = ", ".join(f"{name} {seconds:.1f}" for name, seconds in phases.items())
            print(f"{case.model_name}, {mode}: {shown} s")
            row = Row(
                benchmark="startup",
                data_mode="synthetic-fixed",
                images_per_s=None,
                step_ms=1e3 * phases["first_step"],
                iqr_ms=None,
                warmup_steps=0,
                timed_steps=1,
                repeats=options.repeats,
                compile_s=phases["compile"],
                wall_s=phases["to_first_step"],
                **{**case_columns(case), "mode": mode},
            )
            rows.append(row)
            if options.out is not None:
                append_rows(options.out, machine, [row])
    print_rows(machine, rows)
    return EXIT_OK


def _processes(told: dict[str, Any], repeats: int) -> Iterator[tuple[str, list[dict[str, float]]]]:
    """(cold, its processes' seconds by phase), and where a cache is used (warm, …)."""
    line = json.dumps(told)
    with tempfile.TemporaryDirectory() as folder:
        caches = [Path(folder) / str(index) for index in range(repeats)]
        if on_cpu():
            yield "cold", [_process(line, None) for _ in caches]
            return
        yield "cold", [_process(line, cache) for cache in caches]
        yield "warm", [_process(line, cache) for cache in caches]


def _process(line: str, cache: Path | None) -> dict[str, float]:
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    package_root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, (package_root, os.environ.get("PYTHONPATH"))))
    environment |= {"PYTHONPATH": path, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    if cache is not None:
        cache.mkdir(mode=0o700, exist_ok=True)
        environment |= {
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, line], capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode != 0:
        raise UsageError(
            f"the process that was to be timed ended with {done.returncode}:\n{done.stderr[-2000:]}",
            where="wbc-jax benchmark startup",
        )
    return json.loads(done.stdout.splitlines()[-1])


def start_once(line: str) -> None:
    """What a measured process does; it prints seconds by phase as JSON."""
    from wbc_jax.runtime.startup import StartUp, process_age_s

    startup = StartUp(process_age_s())
    told = json.loads(line)
    (case,) = make_cases(ModelOptions(**{**told, "models": tuple(told["models"])}))
    from wbc_jax.bench.subject import InferSubject, TrainSubject

    startup.ends("import")
    _ = case.initial
    startup.ends("build")
    with ThreadPoolExecutor(2) as pool:
        train, evaluate = pool.submit(TrainSubject, case), pool.submit(InferSubject, case)
        subject = train.result()
        startup.programs = {
            "train": subject.costs.compile_s,
            "evaluate": evaluate.result().costs.compile_s,
        }
    startup.ends("compile")
    subject.run(1)
    startup.ends("first_step")
    print(json.dumps(startup.to_json()))

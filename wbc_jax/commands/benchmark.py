"""`wbc-jax benchmark …`: the benchmarks by name, each with its options and the function that runs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from wbc_jax.bench.compare import CompareOptions, run_compare
from wbc_jax.bench.end_to_end import EndToEndOptions, run_end_to_end
from wbc_jax.bench.frozen import FrozenOptions, run_frozen
from wbc_jax.bench.input import InputOptions, run_input
from wbc_jax.bench.levers import LeverOptions, run_levers
from wbc_jax.bench.probe import ProbeBenchOptions, run_probe
from wbc_jax.bench.scaling import ScalingModelOptions, ScalingOptions, run_scaling, run_scaling_model
from wbc_jax.bench.startup import StartupOptions, run_startup
from wbc_jax.bench.step import StepOptions, run_step
from wbc_jax.bench.usage import UsageOptions, run_memory
from wbc_jax.bench.variants import VariantOptions, run_variants
from wbc_jax.commands.predict_speed import PredictSpeedOptions, run_predict_speed
from wbc_jax.commands.time_to_accuracy import TimeToAccuracyOptions, run_time_to_accuracy

BENCHMARKS: dict[str, tuple[type[Any], Callable[[Any], int]]] = {
    "step": (StepOptions, run_step),
    "input": (InputOptions, run_input),
    "end-to-end": (EndToEndOptions, run_end_to_end),
    "compare": (CompareOptions, run_compare),
    "variants": (VariantOptions, run_variants),
    "scaling": (ScalingOptions, run_scaling),
    "scaling-model": (ScalingModelOptions, run_scaling_model),
    "startup": (StartupOptions, run_startup),
    "memory": (UsageOptions, run_memory),
    "levers": (LeverOptions, run_levers),
    "frozen": (FrozenOptions, run_frozen),
    "probe": (ProbeBenchOptions, run_probe),
    "predict": (PredictSpeedOptions, run_predict_speed),
    "time-to-accuracy": (TimeToAccuracyOptions, run_time_to_accuracy),
}

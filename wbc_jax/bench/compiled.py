"""A step compiled for a benchmark, in the forms that were chosen, and what compiling cost."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax

from wbc_jax.models.compiler import compiler_options
from wbc_jax.models.lowerings import Form, forms

_TRACING = threading.Lock()
"""Forms of operations hold for the whole process, so one step is traced at a time; compiling may overlap."""
_READ_BACK = "/jax/compilation_cache/cache_hits"
_programs = threading.local()


def _count(event: str, **_: object) -> None:
    """Programs that this thread has read from the persistent cache; jax tells so in the thread that asked."""
    if event == _READ_BACK:
        _programs.read_back = getattr(_programs, "read_back", 0) + 1


jax.monitoring.register_event_listener(_count)


@dataclass(frozen=True)
class CompiledCosts:
    """Of one compiled step.

    Attributes:
        compile_s: tracing, lowering, compiling.
        from_cache: the program was read from the persistent cache, and not compiled.
        program: digest of what the compiler was given; equal where forms change nothing.
        peak_memory_gib: arguments, results and scratch space, what is donated counted once; None: not reported.
        flops, bytes_accessed: XLA's cost analysis of the whole program; None: not reported.
    """

    compile_s: float
    from_cache: bool
    program: str
    peak_memory_gib: float | None
    flops: float | None
    bytes_accessed: float | None


def compile_step(
    jitted: Callable[[], Any], args: tuple[Any, ...], chosen: Mapping[str, Form] | None = None
) -> tuple[Any, CompiledCosts]:
    """A step's program, and what it cost.

    Args:
        jitted: makes the jitted step, with the options that its forms need.
        args: what it is called with.
        chosen: kind of operation -> form, where it is not the backend's own choice.
    """
    overrides: dict[str, Form] = dict(chosen or {})
    with _TRACING, forms(**overrides):
        start = time.perf_counter()
        lowered = jitted().lower(*args)
        seconds = time.perf_counter() - start
        given = f"{lowered.as_text()}{compiler_options()}"
    before, start = getattr(_programs, "read_back", 0), time.perf_counter()
    compiled = lowered.compile()
    seconds += time.perf_counter() - start
    found = compiled.cost_analysis() or {}
    costs = CompiledCosts(
        compile_s=seconds,
        from_cache=getattr(_programs, "read_back", 0) > before,
        program=hashlib.sha256(given.encode()).hexdigest(),
        peak_memory_gib=_peak_gib(compiled),
        flops=found.get("flops"),
        bytes_accessed=found.get("bytes accessed"),
    )
    return compiled, costs


def _peak_gib(compiled: Any) -> float | None:
    found = compiled.memory_analysis()
    if found is None:
        return None
    used = (
        found.argument_size_in_bytes
        + found.output_size_in_bytes
        + found.temp_size_in_bytes
        - found.alias_size_in_bytes
    )
    return used / 2**30

"""How the steps of several networks are compiled before they are measured."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from wbc_jax.bench import step
from wbc_jax.bench.compiled import CompiledCosts
from wbc_jax.bench.step import compile_all, subject_columns


def makers(made: list[int], count: int = 3) -> list:
    """Functions of which the first is done first."""

    def make(index: int) -> int:
        time.sleep(0.05 * index)
        made.append(index)
        return index

    return [lambda index=index: make(index) for index in range(count)]


def test_on_an_accelerator_nothing_is_measured_while_something_compiles(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(step, "on_cpu", lambda: False)
    made: list[int] = []
    subjects = compile_all(makers(made))
    assert next(subjects) == 0
    assert made == [0, 1, 2]
    assert list(subjects) == [1, 2]


def test_on_a_cpu_each_is_compiled_when_its_turn_comes() -> None:
    made: list[int] = []
    subjects = compile_all(makers(made))
    assert next(subjects) == 0
    assert made == [0]
    assert list(subjects) == [1, 2]


def test_a_program_from_the_cache_is_told_from_a_compiled_one(tmp_path: Path) -> None:
    """Compiled, read back from the cache, and another one compiled."""
    code = (
        "import sys, jax, jax.numpy as jnp\n"
        "jax.config.update('jax_compilation_cache_dir', sys.argv[1])\n"
        "jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)\n"
        "jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)\n"
        "from wbc_jax.bench.compiled import compile_step\n"
        "def costs(power):\n"
        "    return compile_step(lambda: jax.jit(lambda x: x**power), (jnp.ones(3),))[1]\n"
        "found = [costs(power) for power in (3, 3, 5)]\n"
        "print(*(one.from_cache for one in found), *(one.program == found[0].program for one in found))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "True", "False", "True", "True", "False"]


@pytest.mark.parametrize(("from_cache", "compile_s"), [(False, 40.0), (True, None)])
def test_reading_a_program_back_is_not_called_compiling(from_cache: bool, compile_s: float | None) -> None:
    costs = CompiledCosts(
        compile_s=40.0,
        from_cache=from_cache,
        program="",
        peak_memory_gib=1.0,
        flops=None,
        bytes_accessed=None,
    )
    subject: Any = SimpleNamespace(costs=costs)
    case: Any = SimpleNamespace(batch_size=8)
    assert subject_columns(subject, case)["compile_s"] == compile_s

"""Phases from the command to the first step, and the line that reports them."""

from __future__ import annotations

import os
import time

import pytest

from wbc_jax.runtime import startup as startup_module
from wbc_jax.runtime.compile_cache import CacheCounts
from wbc_jax.runtime.startup import PHASES, StartUp, process_age_s


def test_phases_follow_each_other_and_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([100.0, 101.0, 103.5, 104.0, 110.0, 110.5])
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    startup = StartUp(age_s=2.0)
    for phase in PHASES:
        startup.ends(phase)
    startup.ends("first_step")  # later steps are not the first
    startup.programs = {"train": 5.5, "evaluate": 2.0}
    assert startup.seconds == {"import": 3.0, "data": 2.5, "build": 0.5, "compile": 6.0, "first_step": 0.5}
    assert startup.to_json()["to_first_step"] == 12.5
    assert startup.to_json()["compile_evaluate"] == 2.0
    assert startup.line() == (
        "start-up 12.5 s from the command to the first step: import 3.0, data 2.5, build 0.5, compile 6.0, "
        "first step 0.5 (train 5.5, evaluate 2.0)"
    )


def test_programs_of_the_cache_are_told_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = CacheCounts(hits=5, misses=7)
    monkeypatch.setattr(startup_module, "cache_counts", lambda: counts)
    cold, warm, mixed = StartUp(), StartUp(), StartUp()
    counts = CacheCounts(hits=5, misses=10)  # the counts of a process; a run's are what came since
    cold.ends("compile")
    counts = CacheCounts(hits=9, misses=7)
    warm.ends("compile")
    counts = CacheCounts(hits=6, misses=9)
    mixed.ends("compile")
    assert cold.line().endswith("; cold, programs: 0 from the cache, 3 compiled")
    assert warm.line().endswith("; warm, programs: 4 from the cache, 0 compiled")
    assert mixed.line().endswith("; partly warm, programs: 1 from the cache, 2 compiled")
    told = mixed.to_json()
    assert (told["programs_from_cache"], told["programs_compiled"]) == (1, 2)


def test_without_a_cache_nothing_is_said_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup_module, "cache_counts", lambda: None)
    startup = StartUp()
    startup.ends("import")
    assert "programs" not in startup.line()
    assert not any(name.startswith("programs") for name in startup.to_json())


def test_unknown_phases_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown phase 'warmup'"):
        StartUp().ends("warmup")


def test_age_of_this_process_is_that_of_the_system() -> None:
    ticks = os.sysconf("SC_CLK_TCK")
    with open("/proc/self/stat") as file:
        started = int(file.read().rpartition(")")[2].split()[19]) / ticks
    with open("/proc/uptime") as file:
        up = float(file.read().split()[0])
    assert process_age_s() == pytest.approx(up - started, abs=2.0)

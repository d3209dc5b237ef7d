"""Phases from the command to the first step, and the line that reports them."""

from __future__ import annotations

import os
import time

import pytest

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

"""The clock around a chain, the order of contenders, medians and ranges: with a clock that only steps move."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from wbc_jax.bench.energy import energy_meter, rapl_meter
from wbc_jax.bench.timing import (
    Timing,
    interquartile_range,
    paired_ratios,
    steps_in_all,
    time_interleaved,
)


class FakeMachine:
    """Steps of contender `name` take the next of its durations; everything that ran is written down."""

    def __init__(self, durations: dict[str, list[float]]) -> None:
        self.now = 100.0
        self.calls: list[tuple[str, int]] = []
        self._durations = {name: iter(values) for name, values in durations.items()}

    def clock(self) -> float:
        return self.now

    def contender(self, name: str):
        def run(steps: int) -> None:
            self.calls.append((name, steps))
            for _ in range(steps):
                self.now += next(self._durations[name])

        return run


def test_chains_alternate_and_untimed_steps_are_not_counted() -> None:
    slow_start = [50.0, 50.0]  # warm-up, as compilation or page faults would make it
    machine = FakeMachine(
        {
            "a": [*slow_start, 9.0, 1.0, 3.0, 9.0, 4.0, 4.0, 9.0, 5.0, 7.0],
            "b": [*slow_start, 9.0, 2.0, 2.0, 9.0, 8.0, 8.0, 9.0, 3.0, 3.0],
        }
    )
    timings = time_interleaved(
        {name: machine.contender(name) for name in "ab"},
        warmup_steps=2,
        timed_steps=2,
        repeats=3,
        clock=machine.clock,
    )
    assert machine.calls == [("a", 2), ("b", 2), *[("a", 1), ("a", 2), ("b", 1), ("b", 2)] * 3]
    assert timings["a"].step_seconds == (2.0, 4.0, 6.0)
    assert timings["b"].step_seconds == (2.0, 8.0, 3.0)
    assert timings["b"].median == 3.0
    steps_of_a = sum(steps for name, steps in machine.calls if name == "a")
    assert steps_of_a == steps_in_all(2, 2, 3)


def test_energy_is_metered_per_step() -> None:
    machine = FakeMachine({"a": [1.0] * 12})
    timing = time_interleaved(
        {"a": machine.contender("a")},
        warmup_steps=0,
        timed_steps=3,
        repeats=3,
        clock=machine.clock,
        meter=lambda: 7.0 * machine.now,
    )["a"]
    assert timing.step_joules == (7.0, 7.0, 7.0)
    assert timing.joules == 7.0
    assert Timing((1.0,)).joules is None
    assert Timing((1.0, 1.0), (-3.0, 7.0)).joules is None  # the counter started again


def test_processor_packages_are_added_up(tmp_path: Path) -> None:
    for name, microjoules in (("intel-rapl:0", 2_000_000), ("intel-rapl:1", 500_000), ("intel-rapl:0:0", 9)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(f"{microjoules}\n")
    meter = rapl_meter(tmp_path)
    assert meter is not None
    assert meter() == 2.5
    assert rapl_meter(tmp_path / "none") is None


class Nvml:
    """Stands in for the driver's library: two GPUs that have used 1 J and 2 J."""

    uuids: ClassVar = {b"GPU-first": 0, b"GPU-second": 1}

    def nvmlInit_v2(self) -> int:
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: int, handle: Any) -> int:
        handle._obj.value = 1 + index
        return 0 if index < 2 else 2

    def nvmlDeviceGetHandleByUUID(self, uuid: bytes, handle: Any) -> int:
        return self.nvmlDeviceGetHandleByIndex_v2(self.uuids.get(uuid, 9), handle)

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any, millijoules: Any) -> int:
        millijoules._obj.value = 1000 * handle.value
        return 0


@pytest.mark.parametrize(
    ("visible", "joules"),
    [(None, 1.0), ("", 1.0), ("1", 2.0), ("1,0", 2.0), ("GPU-second", 2.0), ("GPU-other", None), ("7", None)],
)
def test_the_gpu_that_computes_is_metered(
    visible: str | None, joules: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Nvml())
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    meter = energy_meter("gpu")
    assert (None if meter is None else meter()) == joules


def test_quartiles_are_numpys() -> None:
    values = (0.3, 0.1, 0.9, 0.4, 0.35, 0.2)
    low, high = np.percentile(values, [25, 75])
    assert Timing(values).iqr == pytest.approx(high - low)
    assert interquartile_range((0.5,)) == 0.0


def test_ratios_pair_the_repeats_and_above_one_means_we_are_faster() -> None:
    assert paired_ratios(Timing((1.0, 2.0)), Timing((3.0, 2.0))) == (3.0, 1.0)

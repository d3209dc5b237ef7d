"""How long chains of steps take: warm-up first, then repeats that alternate between the contenders.

One repeat of one contender is an untimed step, which brings its threads and caches back, and then a chain of
steps timed as a whole: dispatch is asynchronous, so a clock around each step would measure something else.
Alternating A/B/A/B lets slow drift of the machine (heat, neighbours) hit all contenders alike.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from wbc_jax.bench.energy import Meter

RunChain = Callable[[int], object]
"""`run(steps)` carries out that many steps, one after the other, and returns when the last has ended."""

UNTIMED_STEPS = 1
"""Steps at the start of each repeat that are not timed."""


@dataclass(frozen=True)
class Timing:
    """Seconds per step of each repeat, in order; with a meter also joules per step."""

    step_seconds: tuple[float, ...]
    step_joules: tuple[float, ...] | None = None

    @property
    def median(self) -> float:
        """Seconds per step, median over the repeats."""
        return statistics.median(self.step_seconds)

    @property
    def joules(self) -> float | None:
        """Joules per step, median over the repeats; None where nothing was metered or a counter started again."""
        if not self.step_joules or min(self.step_joules) <= 0:
            return None
        return statistics.median(self.step_joules)

    @property
    def iqr(self) -> float:
        """Seconds per step, distance between the quartiles of the repeats; 0 for a single one."""
        return interquartile_range(self.step_seconds)


def time_interleaved(
    contenders: Mapping[str, RunChain],
    *,
    warmup_steps: int,
    timed_steps: int,
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
    meter: Meter | None = None,
) -> dict[str, Timing]:
    """Times every contender `repeats` times, in turns; compilation must be over before.

    Args:
        contenders: chains by name; each keeps its own state from call to call.
        warmup_steps: untimed steps of each contender before the first repeat.
        timed_steps: steps of one timed chain.
        repeats: chains per contender.
        clock: seconds, monotonic.
        meter: joules used so far; None: energy is not known.
    """
    for run in contenders.values():
        if warmup_steps:
            run(warmup_steps)
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    joules: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, run in contenders.items():
            run(UNTIMED_STEPS)
            used, start = meter() if meter else 0.0, clock()
            run(timed_steps)
            seconds[name].append((clock() - start) / timed_steps)
            if meter:
                joules[name].append((meter() - used) / timed_steps)
    return {name: Timing(tuple(values), tuple(joules[name]) or None) for name, values in seconds.items()}


def steps_in_all(warmup_steps: int, timed_steps: int, repeats: int) -> int:
    """Steps that `time_interleaved` asks of each contender."""
    return warmup_steps + repeats * (UNTIMED_STEPS + timed_steps)


def paired_ratios(ours: Timing, peer: Timing) -> tuple[float, ...]:
    """Our speed over the peer's in each repeat: above 1 we are faster."""
    return tuple(p / o for o, p in zip(ours.step_seconds, peer.step_seconds, strict=True))


def interquartile_range(values: tuple[float, ...]) -> float:
    """Distance between the quartiles, linear between the values; 0 for a single one."""
    if len(values) < 2:
        return 0.0
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return high - low

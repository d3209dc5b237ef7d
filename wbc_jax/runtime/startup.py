"""From the command to the first training step: which phase took how long, and what was compiled anew."""

from __future__ import annotations

import time

from wbc_jax.runtime.compile_cache import CacheCounts, cache_counts

PHASES: tuple[str, ...] = ("import", "data", "build", "compile", "first_step")
"""In order. `import` also holds checking the config and starting the devices, `build` the initial parameters, weights
and images on the devices; `compile` is the time that was waited for compiled programs."""


class StartUp:
    """A stopwatch whose phases follow each other; `ends("data")` ends one."""

    def __init__(self, age_s: float = 0.0) -> None:
        """
        Args:
            age_s: seconds since the command was given, already part of the first phase.
        """
        self._since_s = time.perf_counter() - age_s
        self.seconds: dict[str, float] = {}
        self.programs: dict[str, float] = {}
        """Seconds that each compiled program took, side by side within `compile`."""
        self.cache: CacheCounts | None = None
        """Programs taken from the compile cache and compiled, up to the end of the last phase; None: no cache."""
        self._before = cache_counts() or CacheCounts()

    def ends(self, phase: str) -> None:
        """Ends a phase of `PHASES` that began where the one before ended; only its first end counts."""
        if phase not in PHASES:
            raise ValueError(f"unknown phase {phase!r}, expected one of {', '.join(PHASES)}")
        if phase not in self.seconds:
            now = time.perf_counter()
            self.seconds[phase], self._since_s = now - self._since_s, now
            if (counts := cache_counts()) is not None:
                before = self._before
                self.cache = CacheCounts(counts.hits - before.hits, counts.misses - before.misses)

    def to_json(self) -> dict[str, float]:
        """Seconds by phase, `to_first_step` their sum, `compile_<program>` of each, and the cache's two counts."""
        named = {f"compile_{name}": seconds for name, seconds in self.programs.items()}
        times = {**self.seconds, "to_first_step": sum(self.seconds.values()), **named}
        if self.cache is None:
            return times
        return {**times, "programs_from_cache": self.cache.hits, "programs_compiled": self.cache.misses}

    def line(self) -> str:
        """One line for the end of a run."""
        parts = [f"{name.replace('_', ' ')} {seconds:.1f}" for name, seconds in self.seconds.items()]
        beside = ", ".join(f"{name} {seconds:.1f}" for name, seconds in self.programs.items())
        text = (
            f"start-up {sum(self.seconds.values()):.1f} s from the command to the first step: "
            + ", ".join(parts)
        )
        text = f"{text} ({beside})" if beside else text
        if self.cache is None:
            return text
        hits, misses = self.cache.hits, self.cache.misses
        kind = "warm" if not misses else "cold" if not hits else "partly warm"
        return f"{text}; {kind}, programs: {hits} from the cache, {misses} compiled"


def process_age_s() -> float:
    """Seconds since the operating system started this process; 0 where that is not known."""
    import psutil

    try:
        return max(0.0, time.time() - psutil.Process().create_time())
    except psutil.Error:
        return 0.0

"""Where the time of a run goes: steps, waiting for input, compilation, evaluation, checkpoints, the rest."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import jax.monitoring

SHARES: tuple[str, ...] = ("step", "input", "compile", "evaluate", "checkpoint", "other")
_LABELS = {"input": "input wait", "step": "steps", "evaluate": "evaluation", "checkpoint": "checkpoints"}

# Lowering and code generation; tracing is not announced without double counting and stays with its caller.
_COMPILE_EVENTS = (
    "/jax/core/compile/jaxpr_to_mlir_module_duration",
    "/jax/core/compile/backend_compile_duration",
)


class Goodput:
    """A stopwatch with named shares; `with goodput.measure("input"): …`.

    A share inside another interrupts it, and compilation, wherever it happens, is taken out of the share around
    it, so the shares add up to the time since construction. Only the newest object hears of compilations.
    """

    def __init__(self) -> None:
        self._start_s = time.perf_counter()
        self._seconds = dict.fromkeys(SHARES, 0.0)
        self._open: list[str] = []
        self._since_s = self._start_s
        self._thread = threading.get_ident()
        _listen_for(self)

    @contextlib.contextmanager
    def measure(self, share: str) -> Iterator[None]:
        """Adds the time of the block to `share`, one of `SHARES`."""
        if share not in self._seconds:
            raise ValueError(f"unknown share {share!r}, expected one of {', '.join(SHARES)}")
        self._settle()
        self._open.append(share)
        try:
            yield
        finally:
            self._settle()
            self._open.pop()

    def seconds(self) -> dict[str, float]:
        """Seconds of each share so far; their sum is the time since construction."""
        self._settle()
        return dict(self._seconds)

    def share(self, name: str) -> float:
        """A share of the time since construction, 0 to 1."""
        seconds = self.seconds()
        return seconds[name] / max(sum(seconds.values()), 1e-9)

    def goodput(self) -> float:
        """Time in steps and evaluation as a share of all time but compilation, 0 to 1.

        Compilation is left out since it does not grow with the run; the summary names it beside.
        """
        seconds = self.seconds()
        return (seconds["step"] + seconds["evaluate"]) / max(sum(seconds.values()) - seconds["compile"], 1e-9)

    def summary_line(self) -> str:
        """One line for the end of a run."""
        seconds = self.seconds()
        total = max(sum(seconds.values()), 1e-9)
        parts = [f"{_LABELS.get(name, name)} {value / total:.1%}" for name, value in seconds.items()]
        return f"goodput {self.goodput():.1%} without compilation; {total:.1f} s: " + ", ".join(parts)

    def _settle(self) -> None:
        now = time.perf_counter()
        self._seconds[self._open[-1] if self._open else "other"] += now - self._since_s
        self._since_s = now

    def _compiled(self, duration_s: float) -> None:
        if threading.get_ident() != self._thread:
            return
        self._settle()
        around = self._open[-1] if self._open else "other"
        moved = min(duration_s, self._seconds[around])
        self._seconds[around] -= moved
        self._seconds["compile"] += moved


_newest: Goodput | None = None
_listening = False


def _listen_for(goodput: Goodput) -> None:
    global _newest, _listening
    _newest = goodput
    if not _listening:
        jax.monitoring.register_event_duration_secs_listener(_on_duration)
        _listening = True


def _on_duration(event: str, duration_secs: float, **kwargs: str | int) -> None:
    if event in _COMPILE_EVENTS and _newest is not None:
        _newest._compiled(duration_secs)

"""SIGINT and SIGTERM as a flag: finish the step, save, leave. A second signal ends the process at once."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_STOP_READING = 0  # no signal has this number


class SignalFlag:
    """Context manager that turns the first SIGINT or SIGTERM into `requested`, and exits at the second.

    Signals arrive through the wake-up descriptor and a thread rather than through Python's own handlers, which
    run only when the main thread gets back to Python: a second Ctrl-C works in the middle of a compilation.
    Outside the main thread no handler can be set; the flag then stays down unless `request` is called.

    Args:
        report: receives a line at the first signal.
    """

    def __init__(self, report: Callable[[str], None] | None = None) -> None:
        self._report = report
        self._signal: int | None = None
        self._previous: dict[int, Any] = {}
        self._previous_wakeup = -1
        self._pipe: tuple[int, int] | None = None
        self._reader: threading.Thread | None = None

    @property
    def requested(self) -> bool:
        """Whether a signal asked to stop."""
        return self._signal is not None

    @property
    def exit_code(self) -> int | None:
        """130 after SIGINT, 143 after SIGTERM, None while no signal came."""
        return None if self._signal is None else 128 + self._signal

    def request(self, number: int = signal.SIGTERM) -> None:
        """Raises the flag as the signal `number` would."""
        if self._signal is None:
            self._signal = int(number)

    def __enter__(self) -> SignalFlag:
        if threading.current_thread() is not threading.main_thread():
            return self
        self._pipe = os.pipe()
        os.set_blocking(self._pipe[1], False)
        self._reader = threading.Thread(target=self._read, args=(self._pipe[0],), name="signals", daemon=True)
        self._reader.start()
        self._previous_wakeup = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        for number in _SIGNALS:
            self._previous[number] = signal.signal(number, _ignore)
        return self

    def __exit__(self, *_: object) -> None:
        if self._pipe is None or self._reader is None:
            return
        for number, handler in self._previous.items():
            # None: the handler was not set from Python and cannot be given back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.set_wakeup_fd(self._previous_wakeup)
        os.write(self._pipe[1], bytes([_STOP_READING]))
        self._reader.join()
        for descriptor in self._pipe:
            os.close(descriptor)
        self._pipe = self._reader = None
        self._previous.clear()

    def _read(self, descriptor: int) -> None:
        while True:
            for number in os.read(descriptor, 64):
                if number == _STOP_READING:
                    return
                if number not in _SIGNALS:
                    continue
                if self._signal is not None:
                    _exit_at_once(128 + number)
                self._signal = number
                if self._report is not None:
                    name = signal.Signals(number).name
                    line = f"{name}: saving the current step, then leaving; once more to leave at once"
                    with contextlib.suppress(OSError, ValueError):  # a closed terminal; keep listening
                        self._report(line)


def _ignore(number: int, frame: FrameType | None) -> None:
    """Takes the place of the default action; the signal itself is read by the thread."""


def _exit_at_once(code: int) -> None:
    if sys.stderr.isatty():
        os.write(2, b"\x1b[?25h")  # a progress bar has hidden the cursor
    # No clean-up on purpose: checkpoints are complete or absent by construction, and clean-up could hang.
    os._exit(code)

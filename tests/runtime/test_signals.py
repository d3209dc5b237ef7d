"""Signals: the first asks, the second ends, and the handlers of before come back."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from wbc_jax.runtime.signals import SignalFlag

# Two threads write, so a line is written in one piece.
SAY = r"""
import hashlib, sys, time
from wbc_jax.runtime.signals import SignalFlag
def say(line):
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
"""

LOOP = """
with SignalFlag(say) as flag:
    say("ready")
    for _ in range(3000):
        if flag.requested:
            say("saved")
            break
        time.sleep(0.01)
sys.exit(flag.exit_code)
"""

# A library call that never returns to Python, like a long compilation.
STUCK = """
with SignalFlag(say) as flag:
    say("ready")
    hashlib.pbkdf2_hmac("sha256", b"a", b"b", 2**31 - 1)
"""


@contextlib.contextmanager
def child_running(code: str) -> Iterator[subprocess.Popen[str]]:
    child = subprocess.Popen([sys.executable, "-c", SAY + code], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        yield child
    finally:
        child.kill()
        child.communicate()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_first_signal_lets_the_step_finish(number: signal.Signals, code: int) -> None:
    with child_running(LOOP) as child:
        child.send_signal(number)
        output, _ = child.communicate(timeout=60)
    assert child.returncode == code
    note, saved = sorted(output.splitlines())
    assert note.startswith(f"{number.name}: saving the current step")
    assert saved == "saved"


def test_second_signal_ends_even_a_process_stuck_in_a_library() -> None:
    with child_running(STUCK) as child:
        child.send_signal(signal.SIGTERM)
        assert child.stdout is not None
        assert child.stdout.readline().startswith("SIGTERM")
        assert child.poll() is None
        child.send_signal(signal.SIGINT)
        child.wait(timeout=60)
    assert child.returncode == 130


def test_handlers_and_descriptors_are_restored() -> None:
    before = [signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)]
    descriptors = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    with SignalFlag() as flag:
        assert (flag.requested, flag.exit_code) == (False, None)
        signal.raise_signal(signal.SIGTERM)
        deadline = time.monotonic() + 30
        while not flag.requested and time.monotonic() < deadline:
            time.sleep(0.01)
    assert flag.exit_code == 143
    assert [signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)] == before
    assert signal.set_wakeup_fd(-1) == -1
    if descriptors is not None:
        assert len(os.listdir("/proc/self/fd")) == descriptors


def test_outside_the_main_thread_nothing_is_installed() -> None:
    seen: list[object] = []

    def enter() -> None:
        before = signal.getsignal(signal.SIGTERM)
        with SignalFlag() as flag:
            seen.append(signal.getsignal(signal.SIGTERM) is before)
            flag.request()
            flag.request(signal.SIGINT)
            seen.append(flag.exit_code)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [True, 143]

"""A watched command's peak is its own, whatever this process holds."""

from __future__ import annotations

import sys

import numpy as np

from wbc_jax.bench.memory import measure_command

MIB = 2**20


def test_peak_is_that_of_the_command_and_its_children() -> None:
    here = np.ones(160 * MIB, np.uint8)  # must not count
    small = measure_command([sys.executable, "-S", "-c", "print('small')"])
    hold = "x = bytearray(b'x') * (96 << 20)"
    large = measure_command([sys.executable, "-S", "-c", hold])
    spawn = f"import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', {hold!r}])"
    parent = measure_command([sys.executable, "-S", "-c", spawn])
    assert here.size == 160 * MIB
    assert (small.code, small.output) == (0, "small\n")
    assert small.peak_bytes < 64 * MIB
    assert 96 * MIB < large.peak_bytes < 160 * MIB
    assert 96 * MIB < parent.peak_bytes < 160 * MIB
    assert large.wall_s > 0


def test_exit_status_and_messages_come_back() -> None:
    failed = measure_command([sys.executable, "-c", "import sys; sys.exit('broken')"])
    assert (failed.code, failed.output) == (1, "broken\n")

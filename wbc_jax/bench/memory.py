"""Peak memory and time of a command. Needs the standard library alone.

The command runs below a small Python process of its own, because Linux counts what a process held before it became
the command: started from here, a small command would seem to need what this process needs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_WATCHER = """
import json, os, resource, subprocess, sys, time
report, command = sys.argv[1], sys.argv[2:]
start = time.perf_counter()
code = subprocess.run(command).returncode
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
with open(report, "w") as file:
    json.dump({"code": code, "seconds": seconds, "peak": peak}, file)
"""
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes in a unit of ru_maxrss."""


@dataclass(frozen=True)
class Usage:
    """What a command took.

    Attributes:
        code: its exit status.
        wall_s: seconds from start to end.
        peak_bytes: largest resident size of it or of any of its children, whichever is larger.
        output: what it printed.
    """

    code: int
    wall_s: float
    peak_bytes: int
    output: str


def measure_command(
    command: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Usage:
    """Runs a command to its end.

    Args:
        command: program and arguments.
        env: its environment; None: this process's.
        cwd: its working directory; None: this process's.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = os.path.join(folder, "usage.json")
        watched = [sys.executable, "-I", "-S", "-c", _WATCHER, report, *command]
        done = subprocess.run(
            watched,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=True,
            env=None if env is None else dict(env),
            cwd=cwd,
        )
        with open(report, encoding="utf-8") as file:
            facts = json.load(file)
    return Usage(facts["code"], facts["seconds"], facts["peak"] * _RSS_UNIT, done.stdout)

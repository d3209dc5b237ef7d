#!/usr/bin/env python3
"""From the command to the end of the first step, cold and warm: `python benchmarks/startup.py --help`.

Works from a checkout, and where tyro is not installed; `wbc-jax benchmark startup` is the same.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from wbc_jax.bench.arguments import run_from_command_line
from wbc_jax.bench.startup import StartupOptions, run_startup

if __name__ == "__main__":
    sys.exit(run_from_command_line(StartupOptions, run_startup))

#!/usr/bin/env python3
"""What each measured form gains over XLA's native one: `python benchmarks/levers.py --help`.

Works from a checkout, and where tyro is not installed; `wbc-jax benchmark levers` is the same.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from wbc_jax.bench.arguments import run_from_command_line
from wbc_jax.bench.levers import LeverOptions, run_levers

if __name__ == "__main__":
    sys.exit(run_from_command_line(LeverOptions, run_levers))

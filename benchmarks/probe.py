#!/usr/bin/env python3
"""A sweep of linear heads beside training the whole network: `python benchmarks/probe.py --help`.

Works from a checkout, and where tyro is not installed; `wbc-jax benchmark probe` is the same.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from wbc_jax.bench.arguments import run_from_command_line
from wbc_jax.bench.probe import ProbeBenchOptions, run_probe

if __name__ == "__main__":
    sys.exit(run_from_command_line(ProbeBenchOptions, run_probe))

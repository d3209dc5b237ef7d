#!/usr/bin/env python3
"""A training or prediction step on a fixed synthetic batch: `python benchmarks/step.py --help`.

Works from a checkout, and where tyro is not installed; `wbc-jax benchmark step` is the same.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from wbc_jax.bench.arguments import run_from_command_line
from wbc_jax.bench.step import StepOptions, run_step

if __name__ == "__main__":
    sys.exit(run_from_command_line(StepOptions, run_step))

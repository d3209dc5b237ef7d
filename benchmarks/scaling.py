#!/usr/bin/env python3
"""Training steps on one device, two, four: `python benchmarks/scaling.py --help`.

Works from a checkout, and where tyro is not installed; `wbc-jax benchmark scaling` is the same.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from wbc_jax.bench.arguments import run_from_command_line
from wbc_jax.bench.scaling import ScalingOptions, run_scaling

if __name__ == "__main__":
    sys.exit(run_from_command_line(ScalingOptions, run_scaling))

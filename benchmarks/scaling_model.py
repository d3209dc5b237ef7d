#!/usr/bin/env python3
"""What a model says of training on 8 and 256 accelerators: `python benchmarks/scaling_model.py --help`.

Works from a checkout, and where tyro is not installed; `wbc-jax benchmark scaling-model` is the same.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from wbc_jax.bench.arguments import run_from_command_line
from wbc_jax.bench.scaling import ScalingModelOptions, run_scaling_model

if __name__ == "__main__":
    sys.exit(run_from_command_line(ScalingModelOptions, run_scaling_model))

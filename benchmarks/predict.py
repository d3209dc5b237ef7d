#!/usr/bin/env python3
"""Prediction of image files beside the network alone: `python benchmarks/predict.py --help`.

Works from a checkout; `wbc-jax benchmark predict` is the same.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from wbc_jax.bench.arguments import run_from_command_line
from wbc_jax.commands.predict_speed import PredictSpeedOptions, run_predict_speed

if __name__ == "__main__":
    sys.exit(run_from_command_line(PredictSpeedOptions, run_predict_speed))

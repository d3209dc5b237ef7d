#!/usr/bin/env python3
"""Seconds from process start to 98 % balanced accuracy: `python benchmarks/time_to_accuracy.py --help`.

Needs the real images, found through WBC_DATA_DIR and prepared beforehand (`wbc-jax data prepare pbc`);
`wbc-jax benchmark time-to-accuracy` is the same.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from wbc_jax.bench.arguments import run_from_command_line
from wbc_jax.commands.time_to_accuracy import TimeToAccuracyOptions, run_time_to_accuracy

if __name__ == "__main__":
    sys.exit(run_from_command_line(TimeToAccuracyOptions, run_time_to_accuracy))

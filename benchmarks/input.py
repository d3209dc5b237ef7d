#!/usr/bin/env python3
"""Loaders and augmentation on a generated store: `python benchmarks/input.py --help`.

Works from a checkout, and where tyro is not installed; `wbc-jax benchmark input` is the same.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from wbc_jax.bench.arguments import run_from_command_line
from wbc_jax.bench.input import InputOptions, run_input

if __name__ == "__main__":
    sys.exit(run_from_command_line(InputOptions, run_input))

#!/usr/bin/env python3
"""DAFFNet's step with its attribute predictor joint, frozen, folded, cached: `python benchmarks/frozen.py --help`.

Works from a checkout, and where tyro is not installed; `wbc-jax benchmark frozen` is the same.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from wbc_jax.bench.arguments import run_from_command_line
from wbc_jax.bench.frozen import FrozenOptions, run_frozen

if __name__ == "__main__":
    sys.exit(run_from_command_line(FrozenOptions, run_frozen))

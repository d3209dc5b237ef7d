#!/usr/bin/env python3
"""Our step beside its PyTorch twin: `python benchmarks/compare.py --help`.

Works from a checkout, and where tyro is not installed; `wbc-jax benchmark compare` is the same.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from wbc_jax.bench.arguments import run_from_command_line
from wbc_jax.bench.compare import CompareOptions, run_compare

if __name__ == "__main__":
    sys.exit(run_from_command_line(CompareOptions, run_compare))

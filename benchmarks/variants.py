#!/usr/bin/env python3
"""A training step in several forms, in turns: `python benchmarks/variants.py --help`.

Works from a checkout, and where tyro is not installed; `wbc-jax benchmark variants` is the same.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from wbc_jax.bench.arguments import run_from_command_line
from wbc_jax.bench.variants import VariantOptions, run_variants

if __name__ == "__main__":
    sys.exit(run_from_command_line(VariantOptions, run_variants))

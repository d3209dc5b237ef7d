#!/usr/bin/env python3
"""Peak memory of prepare, train and predict, and the time of `import wbc_jax`: `python benchmarks/memory.py --help`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from wbc_jax.bench.arguments import run_from_command_line
from wbc_jax.bench.usage import UsageOptions, run_memory

if __name__ == "__main__":
    sys.exit(run_from_command_line(UsageOptions, run_memory))

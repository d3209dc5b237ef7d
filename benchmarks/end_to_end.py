#!/usr/bin/env python3
"""What input and augmentation add to a training step: `python benchmarks/end_to_end.py --help`.

Works from a checkout, and where tyro is not installed; `wbc-jax benchmark end-to-end` is the same.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from wbc_jax.bench.arguments import run_from_command_line
from wbc_jax.bench.end_to_end import EndToEndOptions, run_end_to_end

if __name__ == "__main__":
    sys.exit(run_from_command_line(EndToEndOptions, run_end_to_end))

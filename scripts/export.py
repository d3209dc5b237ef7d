#!/usr/bin/env python3
"""`wbc-jax export` from a checkout: `python scripts/export.py …` works without installing the package."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from wbc_jax.cli import main

sys.exit(main(["export", *sys.argv[1:]]))

"""`python -m wbc_jax …` is the command line."""

import sys

from wbc_jax.cli import main

sys.exit(main())

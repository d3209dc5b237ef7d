"""`wbc-jax config`: the resolved configuration and every problem in it."""

from __future__ import annotations

import sys

from wbc_jax.config import Config
from wbc_jax.config_check import Facts, validate
from wbc_jax.config_json import digest, to_json
from wbc_jax.errors import EXIT_OK, EXIT_USAGE


def known_facts(config: Config) -> Facts:
    """What can be known without reading data: data sets, networks, the fields of the chosen network."""
    from wbc_jax.data.registry import DATASETS
    from wbc_jax.models import list_models, model_fields

    models = list_models()
    fields = model_fields(config.model.name) if config.model.name in models else None
    return Facts(datasets=tuple(DATASETS), models=models, model_fields=fields)


def show_config(config: Config) -> int:
    """Prints the config as JSON on standard output; problems go to standard error and give exit code 2."""
    print(to_json(config), end="")
    problems = validate(config, known_facts(config))
    for problem in problems:
        print(f"problem: {problem}", file=sys.stderr)
    print(f"digest {digest(config)[:16]}, {len(problems)} problems", file=sys.stderr)
    return EXIT_USAGE if problems else EXIT_OK


def list_recipes() -> int:
    """Prints every recipe with one line on what it is for."""
    from rich.console import Console
    from rich.table import Table

    from wbc_jax.configs import recipe_names, recipe_title

    table = Table("recipe", "what it is for", box=None)
    for name in recipe_names():
        table.add_row(name, recipe_title(name))
    Console().print(table)
    return EXIT_OK

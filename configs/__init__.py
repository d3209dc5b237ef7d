"""The recipes, by name. `get_recipe("scam:tiny")` is the variant `tiny` of `configs/scam.py`."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from types import ModuleType

from wbc_jax.config import Config
from wbc_jax.configs import amnet, daffnet, quickstart, scam, speed
from wbc_jax.errors import ConfigError

_MODULES: tuple[ModuleType, ...] = (quickstart, speed, scam, daffnet, amnet)


def recipe_names() -> tuple[str, ...]:
    """Every recipe and variant, as `--config` takes them."""
    names: list[str] = []
    for module in _MODULES:
        base = module.__name__.rsplit(".", 1)[-1]
        names += [base if variant is None else f"{base}:{variant}" for variant in module.VARIANTS]
    return tuple(names)


def recipe_title(name: str) -> str:
    """One line on what the recipe is for."""
    variants, variant = _find(name)
    return (variants[variant].__doc__ or "").strip().splitlines()[0]


def get_recipe(name: str) -> Config:
    """The config of a recipe.

    Raises:
        ConfigError: there is none of that name; the message has the closest one.
    """
    variants, variant = _find(name)
    return variants[variant]()


def _find(name: str) -> tuple[dict[str | None, Callable[[], Config]], str | None]:
    base, _, variant = name.partition(":")
    for module in _MODULES:
        if module.__name__.rsplit(".", 1)[-1] == base and (variant or None) in module.VARIANTS:
            return module.VARIANTS, variant or None
    names = recipe_names()
    close = difflib.get_close_matches(name, names, n=1)
    raise ConfigError(
        f"no recipe {name!r}",
        expected=f"one of {', '.join(names)}, or a config.json of an earlier run",
        where="--config",
        remedy=f"did you mean {close[0]}?" if close else "wbc-jax config --list shows what each is for",
    )

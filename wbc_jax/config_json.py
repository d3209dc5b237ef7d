"""Config to strict JSON and back. [pure]

Strict both ways: an unknown, missing or wrongly typed field is an error that names its path, and all of them
are listed at once. The digest identifies a configuration in checkpoints and caches.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import types
import typing
from typing import Any, Literal, get_args, get_origin

from wbc_jax.config import Config
from wbc_jax.errors import ConfigError

FORMAT_VERSION = 1

CHANGEABLE = (
    "log.",
    "runtime.",
    "checkpoint.",
    "data.raw_dir",
    "data.cache_dir",
    "data.loader",
    "data.stream_workers",
    "morphology.other_raw_dir",
)
"""Fields that a resumed run may change: they alter neither the data, nor their order, nor the mathematics."""


def to_dict(config: Any) -> dict[str, Any]:
    """Nested dict of plain JSON values (tuples become lists)."""
    return {
        f.name: to_dict(value) if dataclasses.is_dataclass(value) else _plain(value)
        for f in dataclasses.fields(config)
        for value in [getattr(config, f.name)]
    }


def to_json(config: Config) -> str:
    """The whole config, readable and stable: the same config gives the same text."""
    return json.dumps({"version": FORMAT_VERSION, **to_dict(config)}, indent=2, allow_nan=False) + "\n"


def digest(config: Config) -> str:
    """SHA-256 over the canonical JSON, 64 hex digits."""
    canonical = json.dumps(to_dict(config), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def lasting_digest(config: Config) -> str:
    """SHA-256 over the fields that decide the result, without those that are `CHANGEABLE`."""
    flat = {path: v for path, v in flatten(to_dict(config)).items() if not path.startswith(CHANGEABLE)}
    canonical = json.dumps(flat, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def from_json(text: str, *, where: str = "config.json") -> Config:
    """The config written by `to_json`.

    Raises:
        ConfigError: not JSON, of another version, or with unknown, missing or wrongly typed fields.
    """
    try:
        tree = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"not JSON: {error}", where=where, remedy="restore the file from its run, or start a new run"
        ) from error
    if not isinstance(tree, dict) or tree.pop("version", None) != FORMAT_VERSION:
        raise ConfigError(
            "not a config of this format",
            expected=f'an object with "version": {FORMAT_VERSION}',
            where=where,
            remedy="use the version of wbc_jax that wrote it",
        )
    problems: list[str] = []
    config = _build(Config, tree, "", problems)
    if problems:
        raise ConfigError("\n".join(problems), where=where, remedy="correct these fields")
    return config


def differences(old: Config, new: Config) -> list[str]:
    """One line `path: old -> new` for each field that differs."""
    flat_old, flat_new = flatten(to_dict(old)), flatten(to_dict(new))
    return [
        f"{path}: {flat_old[path]} -> {flat_new[path]}"
        for path in flat_old
        if flat_old[path] != flat_new[path]
    ]


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"data": {"dataset": "pbc"}}` to `{"data.dataset": "pbc"}`."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, tuple) else value


def _build(cls: Any, tree: Any, prefix: str, problems: list[str]) -> Any:
    if not isinstance(tree, dict):
        problems.append(f"{prefix.rstrip('.') or 'config'}: found {tree!r}, expected an object")
        return cls()
    hints = typing.get_type_hints(cls)
    names = [f.name for f in dataclasses.fields(cls)]
    problems += [f"{prefix}{key}: unknown field" for key in tree if key not in names]
    problems += [f"{prefix}{name}: missing" for name in names if name not in tree]
    values: dict[str, Any] = {}
    for name in names:
        if name not in tree:
            continue
        if dataclasses.is_dataclass(hints[name]):
            values[name] = _build(hints[name], tree[name], f"{prefix}{name}.", problems)
        else:
            value = _as_tuple(tree[name])
            if not _fits(value, hints[name]):
                problems.append(f"{prefix}{name}: found {tree[name]!r}, expected {_describe(hints[name])}")
            else:
                values[name] = value
    return cls(**values)


def _as_tuple(value: Any) -> Any:
    return tuple(_as_tuple(v) for v in value) if isinstance(value, list) else value


def _fits(value: Any, hint: Any) -> bool:
    origin = get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        return any(_fits(value, option) for option in get_args(hint))
    if origin is Literal:
        return value in get_args(hint)
    if origin is tuple:
        options = get_args(hint)
        if not isinstance(value, tuple):
            return False
        if len(options) == 2 and options[1] is Ellipsis:
            return all(_fits(v, options[0]) for v in value)
        return len(value) == len(options) and all(_fits(v, o) for v, o in zip(value, options, strict=True))
    if hint is type(None):
        return value is None
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _describe(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(repr, get_args(hint)))
    return (
        getattr(hint, "__name__", str(hint)) if get_origin(hint) is None else str(hint).replace("typing.", "")
    )

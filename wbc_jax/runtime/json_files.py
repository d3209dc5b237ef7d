"""Strict JSON files, written in one piece: a reader sees the old content or the new, never half of it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from wbc_jax.errors import DataError


def to_plain(value: Any) -> Any:
    """Numpy and jax scalars and arrays, tuples and paths as the plain values that JSON knows."""
    if isinstance(value, dict):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if hasattr(value, "dtype"):
        return np.asarray(value).tolist()
    raise TypeError(f"{type(value).__name__} has no JSON form: {value!r}")


def dumps_strict(value: Any, *, indent: int | None = None) -> str:
    """JSON text without NaN or infinities (ValueError), which other readers refuse."""
    return json.dumps(to_plain(value), indent=indent, allow_nan=False, ensure_ascii=False)


def write_json(path: str | Path, value: Any) -> None:
    """Writes `value` through a temporary file beside `path`, flushed to the disk before it takes the name."""
    path = Path(path)
    text = dumps_strict(value, indent=2) + "\n"
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read_json(path: str | Path) -> Any:
    """Reads strict JSON: repeated keys, NaN and infinities are refused.

    Raises:
        DataError: the file is missing, unreadable or not strict JSON.
    """
    try:
        return json.loads(
            Path(path).read_text(encoding="utf-8"),
            object_pairs_hook=_without_repeats,
            parse_constant=_refuse_constant,
        )
    except FileNotFoundError:
        raise DataError("the file does not exist", where=str(path)) from None
    except (OSError, ValueError) as error:
        raise DataError(f"not readable as strict JSON: {error}", where=str(path)) from error


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"repeated key {next(key for key in keys if keys.count(key) > 1)!r}")
    return result


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is not a JSON number")

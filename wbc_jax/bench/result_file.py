"""A CSV file of measurements: rows are only added, and columns only at the end, so that old rows stay readable."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wbc_jax.errors import UsageError


def append_values(path: Path, columns: tuple[str, ...], rows: Sequence[Mapping[str, Any]]) -> None:
    """Adds rows, a value for each column, to a CSV file, which gets its header when it is new.

    Raises:
        UsageError: the file has other columns, or cannot be written. Columns that an earlier version did not
            have yet are added to it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        check_columns(path, columns)
        widen(path, columns)
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            if file.tell() == 0:
                writer.writeheader()
            for row in rows:
                writer.writerow({name: _text(row[name]) for name in columns})
    except OSError as error:
        raise UsageError(
            f"the results cannot be written: {error.strerror or error}",
            expected="a CSV file in a folder that can be written",
            where=str(path),
            remedy="choose another --out",
        ) from error


def check_columns(path: Path, columns: tuple[str, ...]) -> None:
    """UsageError where the file has other columns than these, or than the first of these."""
    if not path.exists() or path.stat().st_size == 0:
        return
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        header = tuple(next(csv.reader(file), []))
    if header != columns and header != columns[: len(header)]:
        different = sorted(set(header) ^ set(columns))
        raise UsageError(
            f"the file has other columns: {', '.join(different) or 'in another order'}",
            expected="a benchmark CSV of this version, or a new file",
            where=str(path),
            remedy="choose another --out, or move the old file away",
        )


def widen(path: Path, columns: tuple[str, ...]) -> None:
    """Gives the rows of an earlier version the columns that were added since, empty, in one move."""
    if not path.exists() or path.stat().st_size == 0:
        return
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    if len(header) == len(columns):
        return
    wider = path.with_name(path.name + ".new")
    with wider.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows([*row, *[""] * (len(columns) - len(row))] for row in rows)
    wider.replace(path)


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)

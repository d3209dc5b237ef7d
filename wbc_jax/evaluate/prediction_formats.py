"""CSV, JSON and Parquet, the forms of a predictions file: rows written as they come, and parts joined to one file.

All rows have the columns of the first. Memory does not grow with the number of rows.
"""

from __future__ import annotations

import csv
import itertools
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wbc_jax.errors import UsageError

Rows = Iterable[dict[str, str]]

_ROWS_AT_ONCE = 4096


@dataclass(frozen=True, kw_only=True)
class PredictionFormat:
    """How rows become a file.

    Attributes:
        write: (path, rows) -> number of rows.
        join: (parts in order, path): the rows of all parts in one file. Parts without rows are allowed.
    """

    write: Callable[[Path, Rows], int]
    join: Callable[[Sequence[Path], Path], None]


def format_of(path: Path) -> PredictionFormat:
    """The form that a path's ending asks for.

    Raises:
        UsageError: another ending, or Parquet where pyarrow is not installed.
    """
    if path.suffix not in FORMATS:
        raise UsageError(
            f"predictions cannot be written as {path.suffix or 'a file without ending'}",
            expected=f"a path that ends in {', '.join(FORMATS)}",
            where=str(path),
        )
    if path.suffix == ".parquet":
        _pyarrow()
    return FORMATS[path.suffix]


def is_number(column: str) -> bool:
    """Whether a column holds shares between 0 and 1 rather than names."""
    return column.startswith("prob_") or column.endswith("confidence")


def _write_csv(path: Path, rows: Rows) -> int:
    count = 0
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        for count, row in enumerate(rows, start=1):
            if count == 1:
                writer.writerow(row)
            writer.writerow(row.values())
    return count


def _join_csv(parts: Sequence[Path], path: Path) -> None:
    with path.open("wb") as file:
        for part in parts:
            with part.open("rb") as source:
                header = source.readline()
                if file.tell() == 0:
                    file.write(header)
                shutil.copyfileobj(source, file)


def _write_json(path: Path, rows: Rows) -> int:
    count = 0
    with path.open("w", encoding="utf-8") as file:
        file.write("[")
        for count, row in enumerate(rows, start=1):
            file.write(("," if count > 1 else "") + "\n" + json.dumps(_numbers(row), ensure_ascii=False))
        file.write("\n]\n")
    return count


def _join_json(parts: Sequence[Path], path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write("[")
        first = True
        for line in _json_lines(parts):
            file.write(("" if first else ",") + "\n" + line)
            first = False
        file.write("\n]\n")


def _json_lines(parts: Sequence[Path]) -> Iterator[str]:
    """One object a line, as `_write_json` lays them out."""
    for part in parts:
        with part.open(encoding="utf-8") as source:
            for line in source:
                if line.startswith("{"):
                    yield line.rstrip("\n").rstrip(",")


def _write_parquet(path: Path, rows: Rows) -> int:
    pa, parquet = _pyarrow()
    remaining, count, writer = iter(rows), 0, None
    try:
        while taken := list(itertools.islice(remaining, _ROWS_AT_ONCE)):
            table = pa.Table.from_pylist([_numbers(row) for row in taken], schema=_schema(pa, taken[0]))
            writer = writer or parquet.ParquetWriter(path, table.schema)
            writer.write_table(table)
            count += len(taken)
    finally:
        if writer is not None:
            writer.close()
    if writer is None:
        parquet.write_table(pa.table({}), path)
    return count


def _join_parquet(parts: Sequence[Path], path: Path) -> None:
    pa, parquet = _pyarrow()
    writer = None
    for part in parts:
        with parquet.ParquetFile(part) as source:
            if source.metadata.num_rows == 0:
                continue
            writer = writer or parquet.ParquetWriter(path, source.schema_arrow)
            for group in range(source.num_row_groups):
                writer.write_table(source.read_row_group(group))
    if writer is None:
        parquet.write_table(pa.table({}), path)
    else:
        writer.close()


def _schema(pa: Any, row: dict[str, str]) -> Any:
    return pa.schema([(name, pa.float64() if is_number(name) else pa.string()) for name in row])


def _numbers(row: dict[str, str]) -> dict[str, str | float]:
    return {name: float(value) if is_number(name) else value for name, value in row.items()}


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise UsageError(
            "Parquet needs pyarrow, which is not installed",
            expected="pyarrow, or a path that ends in .csv or .json",
            remedy="pip install 'wbc-jax[parquet]'",
        ) from error
    return pa, parquet


FORMATS: dict[str, PredictionFormat] = {
    ".csv": PredictionFormat(write=_write_csv, join=_join_csv),
    ".json": PredictionFormat(write=_write_json, join=_join_json),
    ".parquet": PredictionFormat(write=_write_parquet, join=_join_parquet),
}

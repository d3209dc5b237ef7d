"""Measurements on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from wbc_jax.bench.schema import Machine, Row

_SHOWN: tuple[tuple[str, str, str], ...] = (
    ("model", "model", ""),
    ("mode", "mode", ""),
    ("variant", "variant", ""),
    ("devices", "devices", "d"),
    ("data_mode", "data", ""),
    ("batch_size", "batch", "d"),
    ("image_size_px", "px", "d"),
    ("images", "images", "d"),
    ("images_per_s", "img/s", ",.1f"),
    ("step_ms", "step ms", ",.1f"),
    ("iqr_ms", "IQR ms", ",.1f"),
    ("traffic_limit_percent", "% of traffic limit", ".1f"),
    ("mfu_percent", "MFU %", ".1f"),
    ("compile_s", "compile s", ".1f"),
    ("peak_memory_gib", "peak GiB", ".2f"),
    ("joules_per_image", "J/image", ".2f"),
    ("loss_first", "first loss", ".4f"),
    ("loss_after", "last loss", ".4f"),
    ("peer", "peer", ""),
    ("peer_images_per_s", "peer img/s", ",.1f"),
    ("peer_loss_after", "peer's last loss", ".4f"),
    ("ratio", "ratio", ".2f"),
    ("ratio_iqr", "ratio IQR", ".2f"),
    ("input_overhead_percent", "input overhead %", ".1f"),
    ("wall_s", "wall s", ".1f"),
)
"""(column, heading, format); a column that is empty in all rows is left out."""


_MOST_ABREAST = 4
"""Up to so many measurements stand side by side, a line for each figure; more of them get a line each."""
_QUIET_LOAD = 0.5
"""Load average per thread up to which a CPU counts as free."""


def print_rows(machine: Machine, rows: Sequence[Row]) -> None:
    """Prints machine and rows."""
    shown = [c for c in _SHOWN if any(getattr(row, c[0]) not in (None, "") for row in rows)]
    headings = [heading for _, heading, _ in shown]
    lines = [headings, *([_cell(getattr(row, name), form) for name, _, form in shown] for row in rows)]
    if len(rows) <= _MOST_ABREAST:
        lines = [list(line) for line in zip(*lines, strict=True)]
    title = f"{machine.device}, {machine.backend}, {machine.threads} CPU threads"
    table = Table(title=title, title_justify="left", box=None)
    for index, heading in enumerate(lines[0]):
        table.add_column(heading, justify="right" if index else "left")
    for line in lines[1:]:
        table.add_row(*line)
    console = Console()
    console.print(table, highlight=False)
    if machine.backend == "cpu" and (machine.load_average or 0.0) > _QUIET_LOAD * machine.threads:
        console.print(
            f"The CPU was busy before this began (load average {machine.load_average:.1f}): "
            "measure again on a quiet machine.",
            highlight=False,
        )


def _cell(value: object, form: str) -> str:
    return "" if value is None else format(value, form)

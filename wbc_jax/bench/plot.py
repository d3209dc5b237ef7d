"""Bars of rates beside their peers, drawn from the rows of a benchmark CSV."""

from __future__ import annotations

import csv
from pathlib import Path

_ALIKE = ("model", "mode", "variant", "device", "precision", "batch_size", "image_size_px")
"""Rows that agree in these measure the same; the newest is drawn."""


def draw_comparison(csv_path: Path) -> Path | None:
    """Writes a PNG beside the CSV: images/s of ours and of the peer, the ratio behind each pair.

    Returns:
        The picture's path; None where matplotlib is not installed or no row has a peer.
    """
    rows = newest_rows(csv_path)
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    if not rows:
        return None
    figure = Figure(figsize=(8.0, 1.2 + 0.6 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for index, row in enumerate(rows):
        ours, peer = float(row["images_per_s"]), float(row["peer_images_per_s"])
        axes.barh(index - 0.2, ours, 0.38, color="#1f77b4", label="wbc_jax" if index == 0 else None)
        axes.barh(index + 0.2, peer, 0.38, color="#bbbbbb", label="peer" if index == 0 else None)
        axes.text(ours, index - 0.2, f" {float(row['ratio']):.2f}×", va="center", fontsize=9)
    axes.set_yticks(range(len(rows)), [_title(row) for row in rows], fontsize=9)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel("images/s (median)")
    peers = sorted({row["peer"] for row in rows})
    axes.set_title(f"{rows[0]['device']}; peer: {', '.join(peers)}", fontsize=10, loc="left")
    axes.legend(fontsize=9, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))  # never on a bar
    picture = csv_path.with_suffix(".png")
    figure.savefig(picture, dpi=110, bbox_inches="tight")
    return picture


def newest_rows(csv_path: Path) -> list[dict[str, str]]:
    """Rows with a peer, in the file's order, of those that measure the same the last."""
    with csv_path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row.get("peer") and row.get("ratio")]
    return list({tuple(row.get(name, "") for name in _ALIKE): row for row in rows}.values())


def _title(row: dict[str, str]) -> str:
    variant = f", {row['variant']}" if row.get("variant") else ""
    return f"{row['model']} {row['mode']}{variant}\n{row['precision']}, batch {row['batch_size']}"

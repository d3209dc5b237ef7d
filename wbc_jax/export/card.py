"""The card that travels with an exported network: what goes in, what comes out, how good it is, where it is from."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from wbc_jax.errors import DataError
from wbc_jax.runtime.json_files import read_json, write_json

FORMAT = "wbc-jax export"
VERSION = 1


def card_path(path: Path) -> Path:
    """`model.stablehlo` -> `model.stablehlo.json`."""
    return path.with_name(path.name + ".json")


def write_card(path: Path, card: dict[str, Any], files: list[Path] | None = None) -> None:
    """Writes the card of an export beside it, with size and digest of its files.

    Args:
        path: the export; the card's name follows from it.
        card: JSON values.
        files: the files that the card vouches for; None: `path` alone.
    """
    listed = {
        file.name: {"bytes": file.stat().st_size, "sha256": file_digest(file)} for file in files or [path]
    }
    write_json(card_path(path), {"format": FORMAT, "version": VERSION, "files": listed, **card})


def read_card(path: Path) -> dict[str, Any]:
    """The card beside an export, whose digest is checked.

    Raises:
        DataError: card or file are missing, damaged, or do not belong together.
    """
    beside = card_path(path)
    if not path.is_file():
        raise DataError("the file does not exist", where=str(path))
    if not beside.is_file():
        raise DataError(
            "the export has no card",
            expected=f"{beside.name} beside {path.name}",
            where=str(path.parent),
            remedy="copy both files, or export the run again",
        )
    card = read_json(beside)
    if not isinstance(card, dict) or card.get("format") != FORMAT or card.get("version") != VERSION:
        raise DataError(
            "not the card of an export", expected=f"{FORMAT}, version {VERSION}", where=str(beside)
        )
    expected = card.get("files", {}).get(path.name, {}).get("sha256")
    if expected is None or file_digest(path) != expected:
        raise DataError(
            "the file is not the one that its card describes",
            expected=f"SHA-256 {expected}" if expected else f"a card that names {path.name}",
            where=str(path),
            remedy="copy both files again, or export the run again",
        )
    return card


def file_digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""The directory of a stage: from which inputs it was made, whether it is complete, and what becomes of an old one."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from wbc_jax.commands.run import METRICS_FILE
from wbc_jax.errors import DataError
from wbc_jax.runtime.json_files import read_json, write_json
from wbc_jax.runtime.rundir import LOCK_NAME, read_state

INPUTS_FILE = "stage.json"
OUTDATED = "outdated"

Standing = Literal["new", "begun", "complete", "outdated"]


def standing(
    directory: Path, inputs: Mapping[str, str], is_whole: Callable[[Path], bool]
) -> tuple[Standing, list[str]]:
    """How a stage stands, and the names of the inputs that have changed since it was begun.

    Args:
        directory: of the stage.
        inputs: digests, as they are now.
        is_whole: whether the stage's results are there, where its state on record says so.
    """
    if not directory.is_dir() or {path.name for path in directory.iterdir()} <= {LOCK_NAME}:
        return "new", []
    try:
        before: dict[str, str] = read_json(directory / INPUTS_FILE)["inputs"]
    except (DataError, KeyError, TypeError):
        return "outdated", [INPUTS_FILE]
    changed = sorted(name for name in {*before, *inputs} if before.get(name) != inputs.get(name))
    if changed:
        return "outdated", changed
    done = read_state(directory) == "finished" and (directory / METRICS_FILE).is_file()
    return ("complete" if done and is_whole(directory) else "begun"), []


def write_inputs(directory: Path, inputs: Mapping[str, str]) -> None:
    """Puts the inputs on record, before anything else is written there."""
    if not (directory / INPUTS_FILE).is_file():
        write_json(directory / INPUTS_FILE, {"inputs": dict(inputs)})


def set_aside(directory: Path) -> Path:
    """Moves a stage made from other inputs to `outdated/<name>-<n>` beside it, and returns where it went."""
    folder = directory.parent / OUTDATED
    folder.mkdir(exist_ok=True)
    for number in itertools.count(1):
        target = folder / f"{directory.name}-{number}"
        if not target.exists():
            directory.rename(target)
            return target
    raise AssertionError("unreachable")

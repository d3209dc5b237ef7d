"""Reading checkpoints: verified first, by any process, without changing anything on the disk."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax

from wbc_jax.errors import CheckpointError, DataError
from wbc_jax.runtime import named_arrays, sealed
from wbc_jax.runtime.json_files import read_json

INFO_NAME = "checkpoint.json"
BEST_NAME = "best"

_STEP_PATTERN = re.compile(r"step_(\d{8,})(?:\.new)?")
_MAX_DIFFERENCES = 20


class Restored(NamedTuple):
    """A state as it was saved, its step, and the values that the caller saved beside it."""

    state: Any
    step: int
    meta: dict[str, Any]


class CheckpointInfo(NamedTuple):
    """What a verified checkpoint says about itself; `arrays` is `{name: [dtype, [sides]]}`."""

    step: int
    meta: dict[str, Any]
    arrays: dict[str, list]


class DamagedCheckpointError(CheckpointError):
    """A checkpoint that is not what was written; another one may serve."""


def read_info(path: str | Path) -> CheckpointInfo:
    """Verifies the checkpoint in the directory `path` and reads its description.

    Raises:
        DamagedCheckpointError: it is missing, incomplete or damaged; names the file.
    """
    path = Path(path)
    try:
        sealed.verify(path)
        document = read_json(path / INFO_NAME)
        info = CheckpointInfo(int(document["step"]), document["meta"], document["arrays"])
        if _STEP_PATTERN.fullmatch(path.name) and step_of(path) != info.step:
            raise sealed.DamagedError(f"it holds step {info.step}")
    except (sealed.DamagedError, DataError, KeyError, TypeError) as error:
        raise DamagedCheckpointError(f"the checkpoint is damaged: {error}", where=str(path)) from error
    return info


def load_variables(
    directory: str | Path,
    *,
    which: str = "best",
    prefer_ema: bool = True,
    report: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Parameters and BatchNorm statistics for inference, as nested host arrays; the optimiser is not read.

    Args:
        directory: `RUN_DIR/checkpoints`; nothing is changed in it.
        which: "best" (else the newest when no best was kept) or "latest".
        prefer_ema: take the averaged parameters where the run kept them.
        report: receives a line for each damaged checkpoint that is passed over.

    Returns:
        `{"params": …, "batch_stats": …}`.

    Raises:
        CheckpointError: there is no valid checkpoint.
    """
    directory = Path(directory)
    best = sealed.candidates(directory / BEST_NAME) if which == "best" else []
    for path in [*best, *step_paths(directory)]:
        try:
            info = read_info(path)
        except DamagedCheckpointError as error:
            report(f"{error.found} ({error.where}); trying the next checkpoint")
            continue
        tops = {name.split("/")[0] for name in info.arrays}
        prefix = "ema_" if prefer_ema and {"ema_params", "ema_batch_stats"} <= tops else ""
        names = [
            name for name in info.arrays if name.split("/")[0] in (f"{prefix}params", f"{prefix}batch_stats")
        ]
        tree = named_arrays.nest(named_arrays.read_arrays(path, info.arrays, names))
        return {name: tree.get(f"{prefix}{name}", {}) for name in ("params", "batch_stats")}
    raise CheckpointError(
        "no valid checkpoint",
        where=str(directory),
        remedy="check the run directory, or train the model first",
    )


def restore_directory(path: Path, abstract_state: Any) -> Restored:
    """Verifies one checkpoint and restores it onto the shardings of `abstract_state`.

    Raises:
        DamagedCheckpointError: it is missing, incomplete or damaged.
        CheckpointError: it has another structure; lists names, shapes and dtypes.
    """
    info = read_info(path)
    expected = named_arrays.name_leaves(abstract_state)
    if lines := named_arrays.differences(info.arrays, named_arrays.describe(expected)):
        surplus = len(lines) - _MAX_DIFFERENCES
        shown = lines[:_MAX_DIFFERENCES] + ([f"and {surplus} more"] if surplus > 0 else [])
        raise CheckpointError(
            f"the checkpoint has another structure, {len(lines)} differences:\n  " + "\n  ".join(shown),
            expected="the same model, optimiser and options as when it was saved",
            where=str(path),
            remedy="use the run's own config.json, or a new run directory",
        )
    arrays = named_arrays.read_arrays(path, info.arrays)
    leaves = [named_arrays.place(arrays[name], leaf) for name, leaf in expected.items()]
    return Restored(jax.tree.unflatten(jax.tree.structure(abstract_state), leaves), info.step, info.meta)


def step_paths(directory: Path) -> list[Path]:
    """The directories of steps, newest first; a successor comes before the one that it replaces."""
    if not directory.is_dir():
        return []
    paths = [path for path in directory.iterdir() if _STEP_PATTERN.fullmatch(path.name) and path.is_dir()]
    return sorted(paths, key=lambda path: (step_of(path), path.name), reverse=True)


def step_of(path: Path) -> int:
    match = _STEP_PATTERN.fullmatch(path.name)
    assert match is not None
    return int(match[1])

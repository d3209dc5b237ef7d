"""A trained network as `predict` applies it, whether it comes from a run directory or from an exported file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from wbc_jax.commands.run import load_run
from wbc_jax.config_json import to_json
from wbc_jax.data.framing import Framing
from wbc_jax.errors import UsageError
from wbc_jax.export.stablehlo import SUFFIX as STABLEHLO_SUFFIX
from wbc_jax.export.stablehlo import load_stablehlo
from wbc_jax.models.compiler import jit
from wbc_jax.train.steps import Prediction


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """A network ready to classify images.

    Attributes:
        class_names: the K classes.
        framing: how images were made square for training.
        size_px: side of the squares that `predict` takes, px.
        predict: uint8 `(B, size_px, size_px, 3)` -> what the network says of them; compiled once a batch size.
        digest: SHA-256 of what decides its answers.
    """

    class_names: tuple[str, ...]
    framing: Framing
    size_px: int
    predict: Callable[[np.ndarray], Prediction]
    digest: str


def load_predictor(source: Path) -> Predictor:
    """A run directory, or a .stablehlo file with its card beside it.

    Raises:
        UsageError: it is neither.
        DataError, CheckpointError: it is damaged.
    """
    source = Path(source)
    if source.is_dir():
        run = load_run(source)
        step, variables = jit(run.predict_step()), jax.device_put(run.variables)
        return Predictor(
            class_names=run.task.class_names,
            framing=run.framing,  # pyright: ignore[reportArgumentType]
            size_px=run.config.data.store_size_px,
            predict=lambda images: step(variables, images),
            digest=_tree_digest(run.variables, to_json(run.config)),
        )
    if source.suffix == STABLEHLO_SUFFIX:
        model = load_stablehlo(source)
        return Predictor(
            class_names=model.class_names,
            framing=model.framing,  # pyright: ignore[reportArgumentType]
            size_px=model.size_px,
            predict=model.call,
            digest=_file_digest(source),
        )
    raise UsageError(
        f"{source} is neither a run directory nor an exported model"
        if source.exists()
        else f"no such file or folder: {source}",
        expected=f"the directory that `wbc-jax train` printed, or a {STABLEHLO_SUFFIX} file",
        remedy=f"wbc-jax export RUN_DIR --format stablehlo --out model{STABLEHLO_SUFFIX}",
    )


def _tree_digest(tree: Any, text: str) -> str:
    """SHA-256 of arrays with their names, and of a text."""
    digest = hashlib.sha256(text.encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.ascontiguousarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}\0".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""A trained network as `predict` applies it, whether it comes from a run directory or from an exported file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from wbc_jax.commands.program_cache import enable_cache
from wbc_jax.commands.run import load_run
from wbc_jax.config import Precision
from wbc_jax.config_json import to_json
from wbc_jax.data.framing import Framing
from wbc_jax.data.placement import place
from wbc_jax.errors import UsageError
from wbc_jax.export.stablehlo import SUFFIX as STABLEHLO_SUFFIX
from wbc_jax.export.stablehlo import load_stablehlo
from wbc_jax.runtime.devices import activation_dtype
from wbc_jax.train.parallel import compile_eval_step, data_mesh, replicate, split_by_row
from wbc_jax.train.steps import Prediction


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """A network ready to classify images.

    Attributes:
        class_names: the K classes.
        framing: how images were made square for training.
        size_px: side of the squares that `predict` takes, px.
        place: uint8 `(B, size_px, size_px, 3)` of the host, or placed before -> the same on the devices.
        predict: what `place` returns -> what the network says of them; compiled once a batch size.
        digest: SHA-256 of what decides its answers.
        devices: that share a batch, so B must be a multiple of it.
    """

    class_names: tuple[str, ...]
    framing: Framing
    size_px: int
    place: Callable[[Any], Any]
    predict: Callable[[Any], Prediction]
    digest: str
    devices: int = 1

    def batch_size(self, asked: int) -> int:
        """The least number of images, `asked` or more, that all devices share equally."""
        return -(-asked // self.devices) * self.devices


def load_predictor(source: Path, precision: Precision = "auto") -> Predictor:
    """A run directory, on all devices of this process, or a .stablehlo file with its card beside it, on one.

    Args:
        source: where it is.
        precision: of a run's activations; auto: bfloat16 on accelerators, float32 on CPU. An exported file has its own.

    Raises:
        UsageError: it is neither, or a precision is asked of an exported file.
        DataError, CheckpointError: it is damaged.
    """
    source = Path(source)
    if source.is_dir():
        run, mesh = load_run(source), data_mesh(jax.local_devices())
        enable_cache(run.config.runtime.compile_cache, run.config.data.cache_dir)
        step = compile_eval_step(run.predict_step(activation_dtype(precision)), mesh)
        variables = replicate(run.variables, mesh)
        return Predictor(
            class_names=run.task.class_names,
            framing=run.framing,  # pyright: ignore[reportArgumentType]
            size_px=run.config.data.store_size_px,
            place=lambda images: place(images, split_by_row(mesh)),
            predict=lambda images: step(variables, images),
            digest=_tree_digest(run.variables, f"{precision} {to_json(run.config)}"),
            devices=mesh.size,
        )
    if source.suffix == STABLEHLO_SUFFIX:
        if precision != "auto":
            raise UsageError(
                f"precision {precision}",
                expected="auto: an exported program has the type it was exported with",
                where=str(source),
                remedy="leave it out, or give the run directory",
            )
        enable_cache(True, None)
        model = load_stablehlo(source)
        return Predictor(
            class_names=model.class_names,
            framing=model.framing,  # pyright: ignore[reportArgumentType]
            size_px=model.size_px,
            place=jax.device_put,
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

"""Trees of arrays as names, and names as files: what a checkpoint stores, without knowing any state class.

A leaf is named by its path, `params/resnet/conv0/kernel`, so a checkpoint can be read without the program
that wrote it, and two structures are compared by name, shape and dtype.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

VARIABLES_ITEM = "variables"
TRAINING_ITEM = "training"

# What inference needs lies in an item of its own, so that it never reads the optimiser.
_VARIABLES_TOPS = ("params", "batch_stats", "ema_params", "ema_batch_stats")


def name_leaves(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by path; None is no leaf.

    Raises:
        ValueError: two leaves share a name.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    named = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
    if len(named) != len(leaves):
        raise ValueError("two leaves of the state have the same path; a key must not contain '/'")
    return named


def snapshot(tree: Any) -> dict[str, np.ndarray]:
    """Copies of all leaves in host memory, by name; the tree may be donated or changed afterwards."""
    named = name_leaves(tree)
    for leaf in named.values():
        if isinstance(leaf, jax.Array):
            leaf.copy_to_host_async()
    # A copy, since on the CPU backend a host array may be a view of the buffer that the next step is given.
    return {name: np.array(leaf, copy=True) for name, leaf in named.items()}


def describe(named: Mapping[str, Any]) -> dict[str, list]:
    """`{name: [dtype, [sides]]}` in plain values."""
    return {name: [np.dtype(_typed(leaf).dtype).name, list(leaf_shape(leaf))] for name, leaf in named.items()}


def leaf_shape(leaf: Any) -> tuple[int, ...]:
    return tuple(_typed(leaf).shape)


def differences(found: Mapping[str, list], expected: Mapping[str, list]) -> list[str]:
    """A line for each name that is missing, surplus, or of another shape or dtype; empty when they agree."""
    lines = []
    for name in sorted(found.keys() | expected.keys()):
        if name not in found:
            lines.append(f"{name}: not in the checkpoint, the program expects {_shape_text(expected[name])}")
        elif name not in expected:
            lines.append(f"{name}: {_shape_text(found[name])} in the checkpoint, not in the program's state")
        elif list(found[name]) != list(expected[name]):
            shapes = _shape_text(found[name]), _shape_text(expected[name])
            lines.append(f"{name}: {shapes[0]} in the checkpoint, {shapes[1]} expected")
    return lines


def write_arrays(directory: Path, named: Mapping[str, np.ndarray]) -> None:
    """Writes the arrays below `directory`, one Orbax item for the variables and one for the rest."""
    for item in (VARIABLES_ITEM, TRAINING_ITEM):
        # Orbax refuses arrays without elements; they are made anew from their description.
        stored = {name: array for name, array in named.items() if _item(name) == item and array.size}
        if stored:
            with _checkpointer() as checkpointer:
                checkpointer.save((directory / item).absolute(), args=ocp.args.PyTreeSave(nest(stored)))


def read_arrays(
    directory: Path, description: Mapping[str, list], names: Iterable[str] | None = None
) -> dict[str, np.ndarray]:
    """Reads arrays written by `write_arrays` as host arrays, by name; `names` None: all."""
    wanted = set(description if names is None else names)
    result: dict[str, np.ndarray] = {}
    for item in (VARIABLES_ITEM, TRAINING_ITEM):
        stored = {
            name: ocp.RestoreArgs(restore_type=np.ndarray)
            for name, (_, shape) in description.items()
            if _item(name) == item and np.prod(shape, dtype=np.int64)
        }
        if not wanted & stored.keys():
            continue
        args = nest({name: value for name, value in stored.items() if name in wanted})
        with _checkpointer() as checkpointer:
            tree = checkpointer.restore(
                (directory / item).absolute(),
                args=ocp.args.PyTreeRestore(
                    item=jax.tree.map(lambda _: 0, args), restore_args=args, partial_restore=True
                ),
            )
        result.update(name_leaves(tree))
    for name in wanted - result.keys():
        dtype, shape = description[name]
        result[name] = np.zeros(shape, dtype)
    return result


def _checkpointer() -> ocp.Checkpointer:
    """Of this process alone: by default Orbax waits for all processes of a run, and only one comes here."""
    here = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=here, active_processes={here}, barrier_sync_key_prefix=f"process{here}"
    )
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


def nest(named: Mapping[str, Any]) -> dict[str, Any]:
    """`{"a/b": x}` -> `{"a": {"b": x}}`."""
    tree: dict[str, Any] = {}
    for name, value in named.items():
        *parents, last = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return tree


def place(array: np.ndarray, like: Any) -> Any:
    """The array where `like` lives: on the devices of its sharding, on the default device, or on the host."""
    if isinstance(like, np.ndarray | np.generic | int | float):
        return array
    # No aliasing: the state is donated to the first step, which may write into its buffers.
    return jax.device_put(array, getattr(like, "sharding", None), may_alias=False)


def _item(name: str) -> str:
    return VARIABLES_ITEM if name.split("/")[0] in _VARIABLES_TOPS else TRAINING_ITEM


def _typed(leaf: Any) -> Any:
    return leaf if hasattr(leaf, "dtype") and hasattr(leaf, "shape") else np.asarray(leaf)


def _shape_text(entry: list) -> str:
    dtype, shape = entry
    return f"{dtype}{list(shape)}"

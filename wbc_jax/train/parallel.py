"""Steps compiled for a one-axis mesh of devices: parameters on each, the batch split over the axis `data`.

Both ways of running a step take and return the same arrays, so a run, its checkpoints and its evaluation do not
depend on the choice:

- `compile_train_step`: jit with shardings. The program is that of one device with the whole batch, so BatchNorm
  statistics, augmentation, mixup and dropout are those of the whole batch for any number of devices.
- `pmap_train_step`: one program a device, joined by collectives over `data`. Loss, gradients and BatchNorm
  statistics (`bn_axis_name="data"`) are those of the whole batch too. What differs: augmentation and dropout draw
  from a key of each device, and mixup's partner, under the same lambda, comes from the same device's share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from wbc_jax.data.placement import place
from wbc_jax.models.compiler import jit

DATA_AXIS = "data"


class CompiledStep:
    """A compiled step that knows how often it was traced: more than once in a run is a defect (R11).

    Call it with positional arguments; only those can be donated.

    Attributes:
        traces: times that the function was traced so far.
    """

    def __init__(self, step: Callable[..., Any], compile_with: Callable[[Callable[..., Any]], Any]) -> None:
        self.traces = 0

        def counted(*args: Any) -> Any:
            self.traces += 1  # runs while tracing only
            return step(*args)

        self._compiled = compile_with(counted)

    def __call__(self, *args: Any) -> Any:
        return self._compiled(*args)

    def lower(self, *args: Any) -> Any:
        """The lowered program, for `compile()`, `cost_analysis()` and `memory_analysis()`."""
        return self._compiled.lower(*args)

    @property
    def compiles_ahead(self) -> bool:
        """Whether calls use what `compile_for` compiled: jit's do."""
        return not isinstance(self._compiled, _SplitBeforeCall)

    def compile_for(self, *args: Any) -> None:
        """Traces and compiles for arguments like these, without running; calls with such arguments then do neither.

        Args:
            *args: arrays, or `jax.ShapeDtypeStruct` with shardings, in place of the arguments.
        """
        self.lower(*args).compile()


def data_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """One-axis mesh `data` over the given devices; None: all there are, over all processes.

    Each process's devices are neighbours, so that its share of a batch is one slice. `jax.make_mesh` may order TPUs
    otherwise.
    """
    chosen = jax.devices() if devices is None else list(devices)
    ordered = sorted(chosen, key=lambda device: (device.process_index, device.id))
    return Mesh(np.array(ordered), (DATA_AXIS,), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """Sharding of state, variables and device-resident data: all of it on each device."""
    return NamedSharding(mesh, PartitionSpec())


def split_by_row(mesh: Mesh) -> NamedSharding:
    """Sharding of a batch: its first axis over the devices."""
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def replicate(tree: Any, mesh: Mesh) -> Any:
    """`tree`, equal on all processes, on every device of the mesh.

    With one process it may share memory with its source, which donation then ends.
    """
    return jax.tree.map(lambda leaf: place(leaf, replicated(mesh)), tree)


def shard_batch(batch: Any, mesh: Mesh) -> Any:
    """A host batch on the mesh, an explicit transfer. With several processes each passes its own rows.

    Args:
        batch: tree of numpy arrays whose first axis divides by this process's number of devices.
        mesh: from `data_mesh`.
    """
    put = partial(jax.make_array_from_process_local_data, split_by_row(mesh))
    return jax.tree.map(lambda rows: put(np.asarray(rows)), batch)


def compile_train_step(step: Callable[..., Any], mesh: Mesh, *, resident: bool = False) -> CompiledStep:
    """`step` from `make_train_step` under jit: state replicated and donated, batch split, sums replicated.

    Args:
        step: `step(state, batch)`, or `step(state, data, rows, mask)` with `resident`.
        mesh: from `data_mesh`.
        resident: `data` is replicated, `rows` and `mask` are split.
    """
    return _compile(step, mesh, resident, donate_argnums=(0,))


def compile_eval_step(step: Callable[..., Any], mesh: Mesh, *, resident: bool = False) -> CompiledStep:
    """A step from `make_eval_step` or `make_predict_step` under jit; nothing donated, results on every device."""
    return _compile(step, mesh, resident, donate_argnums=())


def pmap_train_step(step: Callable[..., Any], mesh: Mesh, *, resident: bool = False) -> CompiledStep:
    """`step` made with `axis_name="data"` under pmap; same arguments and results as `compile_train_step`."""
    devices = list(mesh.devices.flat)
    rows = split_by_row(mesh)
    in_axes = (None, None, 0, 0) if resident else (None, 0)

    def to_devices(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf.reshape(len(devices), -1, *leaf.shape[1:]), tree)

    by_device = jax.jit(
        to_devices, in_shardings=(rows,), out_shardings=rows
    )  # (B, ...) -> (devices, B/devices, ...)

    def compile_with(counted: Callable[..., Any]) -> Callable[..., Any]:
        mapped = jax.pmap(
            counted,
            axis_name=DATA_AXIS,
            in_axes=in_axes,
            out_axes=(None, None),
            devices=devices,
            donate_argnums=0,
        )
        return _SplitBeforeCall(mapped, by_device, in_axes)

    return CompiledStep(step, compile_with)


class _SplitBeforeCall:
    """Gives a pmapped function its split arguments with the leading device axis that pmap asks for."""

    def __init__(self, mapped: Any, by_device: Any, in_axes: tuple[int | None, ...]) -> None:
        self._mapped, self._by_device, self._in_axes = mapped, by_device, in_axes

    def _arguments(self, args: tuple[Any, ...]) -> list[Any]:
        return [
            a if axis is None else self._by_device(a) for a, axis in zip(args, self._in_axes, strict=True)
        ]

    def __call__(self, *args: Any) -> Any:
        return self._mapped(*self._arguments(args))

    def lower(self, *args: Any) -> Any:
        return self._mapped.lower(*self._arguments(args))


def _compile(step, mesh: Mesh, resident: bool, donate_argnums: tuple[int, ...]) -> CompiledStep:
    whole, rows = replicated(mesh), split_by_row(mesh)
    in_shardings = (whole, whole, rows, rows) if resident else (whole, rows)
    return CompiledStep(
        step,
        lambda counted: jit(
            counted, in_shardings=in_shardings, out_shardings=whole, donate_argnums=donate_argnums
        ),
    )

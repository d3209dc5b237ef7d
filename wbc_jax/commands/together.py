"""A run on several processes: process 0 reads and writes the run directory and concludes, the others follow.

The order of the exchanges is the program's own: every process calls the same functions in the same order. With one
process they do nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from wbc_jax.commands.scoring import SamplePredictions, predict_samples
from wbc_jax.config import Config
from wbc_jax.config_json import digest
from wbc_jax.data.experiment import PARTS, Experiment, Samples
from wbc_jax.errors import ConfigError
from wbc_jax.runtime.checkpoint_reading import Restored
from wbc_jax.runtime.checkpoints import Checkpoints
from wbc_jax.runtime.exchange import (
    agree,
    gather_numbers,
    is_first,
    require_same,
    share_arrays,
    share_json,
    share_tree,
)
from wbc_jax.runtime.named_arrays import name_leaves, nest
from wbc_jax.runtime.rundir import FollowedRunDir, RunDir
from wbc_jax.runtime.signals import SignalFlag
from wbc_jax.train.parallel import replicate, split_by_row

Predict = Callable[[Any, Samples, int], SamplePredictions]


def without_place(config: Config) -> Config:
    """The config without what differs between the processes of a run, and between the starts of one."""
    runtime = replace(config.runtime, cluster="auto", coordinator=None, num_processes=None, process_id=None)
    return replace(config, runtime=runtime)


def require_one_config(config: Config, processes: int) -> None:
    """Every process must have the same config, one that several processes can carry out.

    Raises:
        ConfigError: devices are left out, or pmap is asked for, on several processes.
        UsageError: configs differ; folders for data may.
    """
    if processes == 1:
        return
    if config.runtime.num_devices not in (None, jax.device_count()):
        raise ConfigError(
            f"{config.runtime.num_devices} devices are asked for, {processes} processes have {jax.device_count()}",
            expected="all devices of all processes",
            where="runtime.num_devices",
            remedy="leave it out, or start fewer processes",
        )
    if config.train.execution == "pmap":
        raise ConfigError(
            f"pmap on {processes} processes",
            expected="jit",
            where="train.execution",
            remedy="leave it out: jit runs on any number of processes",
        )
    common = without_place(config)
    common = replace(common, data=replace(common.data, raw_dir=None, cache_dir=None))
    remedy = "start every process with the same command, on a run directory that all of them see"
    require_same("the configuration", digest(common), remedy)


def open_together(open_first: Callable[[], RunDir]) -> RunDir | FollowedRunDir:
    """Opens the run directory on process 0; the others get its path."""
    if is_first():
        run_dir = open_first()
        share_json(str(run_dir.path))
        return run_dir
    return FollowedRunDir(Path(share_json(None)))


def restore_together(checkpoints: Checkpoints | None, state: Any, mesh: Any) -> Restored | None:
    """The newest valid checkpoint on the devices of all processes; only process 0 passes `checkpoints`."""
    if jax.process_count() == 1:
        return None if checkpoints is None else checkpoints.restore_latest(state)
    # On the host first; zeros without memory of their own say what is expected.
    like = jax.tree.map(lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape), state)
    restored = None if checkpoints is None else checkpoints.restore_latest(like)
    facts = share_json(None if restored is None else [restored.step, restored.meta])
    if facts is None:
        return None
    shared = share_tree(like if restored is None else restored.state)
    return Restored(replicate(shared, mesh), *facts)


def fits_together(fits: tuple[bool, str]) -> tuple[bool, str]:
    """The decision for device-resident data, which must be one for all: only where every process has room."""
    here, reason = fits
    return (True, reason) if agree(here) else (False, reason if not here else "another process has no room")


def stop_together(flag: SignalFlag, every_steps: int) -> Callable[[], bool]:
    """Whether any process was asked to stop: asked each step, agreed on each `every_steps` where there are several."""
    asked = 0

    def stop_requested() -> bool:
        nonlocal asked
        if jax.process_count() == 1:
            return flag.requested
        asked += 1
        if asked % every_steps == 0:
            received = max(0, (flag.exit_code or 0) - 128)
            if (number := int(gather_numbers(received).max())) > 0:
                flag.request(number)
                return True
        return False

    return stop_requested


def predict_together(eval_step: Any, mesh: Any, experiment: Experiment) -> Predict:
    """`predict(variables, samples, batch_size)` for process 0, which the others join in `follow`."""

    def predict(variables: Any, samples: Samples, batch_size: int) -> SamplePredictions:
        part = next(name for name in PARTS if experiment.part(name) is samples)
        share_json({"part": part, "batch_size": batch_size})
        return _predict(eval_step, mesh, variables, samples, batch_size)

    return predict


def end_following() -> None:
    """Process 0 predicts no more: the others leave `follow`."""
    share_json(None)


def follow(eval_step: Any, mesh: Any, experiment: Experiment) -> None:
    """Joins in every prediction of process 0, until it calls `end_following`."""
    while (task := share_json(None)) is not None:
        _predict(eval_step, mesh, None, experiment.part(task["part"]), task["batch_size"])


def _predict(eval_step: Any, mesh: Any, variables: Any, samples: Samples, batch_size: int):
    if jax.process_count() > 1:
        tree = nest(share_arrays(None if variables is None else name_leaves(variables)))
        variables = {name: tree.get(name, {}) for name in ("params", "batch_stats")}
    return predict_samples(
        eval_step, replicate(variables, mesh), samples, batch_size, sharding=split_by_row(mesh)
    )

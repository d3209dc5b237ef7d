"""A trained run as the other commands need it: network, weights, classes, preprocessing."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wbc_jax import models
from wbc_jax.catalog import Task
from wbc_jax.config import Config, ModelConfig
from wbc_jax.config_json import from_json
from wbc_jax.errors import UsageError

CARD_FILE = "card.json"
CONFIG_FILE = "config.json"
METRICS_FILE = "metrics.json"


@dataclass(frozen=True, kw_only=True)
class LoadedRun:
    """A run directory, read: `model.apply(variables, …)` is ready to call.

    Attributes:
        directory: the run directory.
        config: the config it was trained with.
        task: output classes, in the order of the logits.
        model: network with activations in float32.
        variables: `{"params", "batch_stats"}` of the best validated state.
        parameter_count: number of parameters.
    """

    directory: Path
    config: Config
    task: Task
    model: Any
    variables: Any
    parameter_count: int


def build_model(config: ModelConfig, num_classes: int, **fields: Any) -> Any:
    """The configured network: the options that it has, as plain keyword fields."""
    options = {
        f.name: getattr(config, f.name)
        for f in dataclasses.fields(config)
        if f.name in models.model_fields(config.name) and f.name != "name"
    }
    return models.create_model(config.name, num_classes=num_classes, **options, **fields)


def write_card(directory: Path, config: Config, task: Task, parameter_count: int) -> None:
    """card.json: what someone needs to apply the network, without the training code."""
    from wbc_jax.runtime.json_files import write_json

    write_json(
        directory / CARD_FILE,
        {
            "model": config.model.name,
            "parameters": parameter_count,
            "task": {"name": task.name, "class_names": list(task.class_names), "members": list(task.members)},
            "preprocessing": {
                "framing": config.data.framing,
                "store_size_px": config.data.store_size_px,
                "image_size_px": config.data.image_size_px,
                "colour": "RGB, ImageNet mean and standard deviation",
            },
            "data": {"dataset": config.data.dataset, "split": config.data.split},
            "use": "research use only",
        },
    )


def read_task(directory: Path) -> Task:
    """The task of a run, from its card."""
    task = json.loads((directory / CARD_FILE).read_text())["task"]
    return Task(
        name=task["name"],
        class_names=tuple(task["class_names"]),
        members=tuple(tuple(gathered) for gathered in task["members"]),
    )


def load_run(directory: Path) -> LoadedRun:
    """Reads a run directory.

    Raises:
        UsageError: the folder is not one, or holds no usable checkpoint.
    """
    from wbc_jax.models.summary import count_parameters
    from wbc_jax.runtime.checkpoints import load_variables

    if not (directory / CONFIG_FILE).is_file() or not (directory / CARD_FILE).is_file():
        raise UsageError(
            f"{directory} is not a run directory",
            expected=f"a folder with {CONFIG_FILE} and {CARD_FILE}, as `wbc-jax train` makes it",
            remedy="give the directory that `wbc-jax train` printed",
        )
    config = from_json((directory / CONFIG_FILE).read_text(), where=str(directory / CONFIG_FILE))
    task = read_task(directory)
    variables = load_variables(directory / "checkpoints")
    return LoadedRun(
        directory=directory,
        config=config,
        task=task,
        model=build_model(config.model, task.num_classes),
        variables=variables,
        parameter_count=count_parameters(variables["params"]),
    )

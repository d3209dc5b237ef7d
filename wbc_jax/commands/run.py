"""A trained run as the other commands need it: network, weights, classes, preprocessing."""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wbc_jax import models
from wbc_jax.catalog import ATTRIBUTES, Task
from wbc_jax.config import Config, ModelConfig
from wbc_jax.config_json import from_json
from wbc_jax.errors import DataError, UsageError
from wbc_jax.models.attribute_groups import GROUP_SLICES

if TYPE_CHECKING:
    import numpy as np

    from wbc_jax.train.steps import PredictStep

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
        framing: how the run's images were made square.
        model: network with activations in float32.
        variables: `{"params", "batch_stats"}` of the best validated state.
        parameter_count: number of parameters.
    """

    directory: Path
    config: Config
    task: Task
    framing: str
    model: Any
    variables: Any
    parameter_count: int

    def predict_step(self, dtype: Any = None) -> PredictStep:
        """`predict(variables, images)`: uint8 `(B, S, S, 3)` at the store's size -> `Prediction`, pure.

        Args:
            dtype: of activations; None: float32.
        """
        from wbc_jax.train.steps import make_predict_step

        return make_predict_step(
            self.model
            if dtype is None
            else build_model(self.config.model, self.task.num_classes, dtype=dtype),
            image_size_px=self.config.data.image_size_px,
            flip_average=self.config.eval.flip_average,
        )

    def predicts_attributes(self) -> bool:
        """Whether the network predicts the eleven morphological attributes; nothing is computed to find out."""
        import jax
        import numpy as np

        size = self.config.data.store_size_px
        images = jax.ShapeDtypeStruct((1, size, size, 3), np.uint8)
        said = jax.eval_shape(self.predict_step(), self.variables, images)
        return said.attribute_probabilities is not None

    def attribute_prior(self) -> np.ndarray | None:
        """Share of each attribute value in training, float32 `(31,)`; None: the card does not say."""
        import numpy as np

        frequencies = read_card(self.directory)["data"].get("attribute_frequencies")
        if frequencies is None:
            return None
        return np.array([frequencies[a.name][value] for a in ATTRIBUTES for value in a.values], np.float32)

    def class_index(self, name: str) -> int:
        """Output index of a class; UsageError with the closest name when there is none."""
        if name in self.task.class_names:
            return self.task.class_names.index(name)
        close = difflib.get_close_matches(name, self.task.class_names, n=1)
        raise UsageError(
            f"no class {name!r}",
            expected=f"one of {', '.join(self.task.class_names)}",
            where=str(self.directory),
            remedy=f"did you mean {close[0]}?" if close else "",
        )


def model_options(config: ModelConfig) -> dict[str, Any]:
    """The configured options that the network has, as keyword fields of `create_model`; None: the network's own."""
    known = models.model_fields(config.name)
    options = {
        f.name: getattr(config, f.name)
        for f in dataclasses.fields(config)
        if f.name in known and f.name != "name"
    }
    return {name: value for name, value in options.items() if value is not None}


def build_model(config: ModelConfig, num_classes: int, **fields: Any) -> Any:
    """The configured network."""
    return models.create_model(config.name, num_classes=num_classes, **model_options(config), **fields)


def preprocessing_facts(config: Config, framing: str) -> dict[str, Any]:
    """How an image becomes the network's input, for a card."""
    from wbc_jax.train.augment import IMAGENET_MEAN, IMAGENET_STD

    return {
        "framing": framing,
        "store_size_px": config.data.store_size_px,
        "image_size_px": config.data.image_size_px,
        "colour": "RGB in [0, 1], minus mean, divided by std",
        "mean": list(IMAGENET_MEAN),
        "std": list(IMAGENET_STD),
        "flip_average": config.eval.flip_average,
    }


def write_card(
    directory: Path, config: Config, task: Task, parameter_count: int, attributes: np.ndarray | None = None
) -> None:
    """card.json: what someone needs to apply the network, without the training code.

    Args:
        directory: the run directory.
        config: of the run.
        task: output classes.
        parameter_count: number of parameters.
        attributes: int `(n, 11)`, value indices of the training images, -1 where not annotated.
    """
    from wbc_jax.data.experiment import resolve_framing
    from wbc_jax.explain.attributes import value_frequencies
    from wbc_jax.runtime.json_files import write_json

    frequencies = None if attributes is None else value_frequencies(attributes)
    write_json(
        directory / CARD_FILE,
        {
            "model": config.model.name,
            "model_options": model_options(config.model),
            "parameters": parameter_count,
            "task": {"name": task.name, "class_names": list(task.class_names), "members": list(task.members)},
            "preprocessing": preprocessing_facts(config, resolve_framing(config.data)),
            "data": {
                "dataset": config.data.dataset,
                "split": config.data.split,
                "attribute_frequencies": None if frequencies is None else named_values(frequencies),
            },
            "use": "research use only",
        },
    )


def named_values(values: np.ndarray) -> dict[str, dict[str, float]]:
    """Numbers `(31,)` by name of attribute and value."""
    groups = zip(ATTRIBUTES, GROUP_SLICES, strict=True)
    return {a.name: dict(zip(a.values, map(float, values[part]), strict=True)) for a, part in groups}


def read_card(directory: Path) -> dict[str, Any]:
    """card.json of a run."""
    from wbc_jax.runtime.json_files import read_json

    return read_json(directory / CARD_FILE)


def read_task(directory: Path) -> Task:
    """The task of a run, from its card."""
    try:
        task = read_card(directory)["task"]
        return Task(
            name=task["name"],
            class_names=tuple(task["class_names"]),
            members=tuple(tuple(gathered) for gathered in task["members"]),
        )
    except (KeyError, TypeError) as error:
        raise _damaged_card(directory, error) from error


def load_run(directory: Path) -> LoadedRun:
    """Reads a run directory; of a run in stages, that of its last stage.

    Raises:
        UsageError: the folder is not one.
        DataError: its card is damaged.
        CheckpointError: it holds no valid checkpoint.
    """
    from wbc_jax.models.summary import count_parameters
    from wbc_jax.runtime.checkpoints import load_variables
    from wbc_jax.runtime.rundir import resolve_run_dir

    directory = resolve_run_dir(directory)
    if not (directory / CONFIG_FILE).is_file() or not (directory / CARD_FILE).is_file():
        raise UsageError(
            f"{directory} is not a run directory",
            expected=f"a folder with {CONFIG_FILE} and {CARD_FILE}, as `wbc-jax train` makes it",
            remedy="give the directory that `wbc-jax train` printed",
        )
    config = from_json((directory / CONFIG_FILE).read_text(), where=str(directory / CONFIG_FILE))
    task = read_task(directory)
    try:
        framing = str(read_card(directory)["preprocessing"]["framing"])
    except (KeyError, TypeError) as error:
        raise _damaged_card(directory, error) from error
    variables = load_variables(directory / "checkpoints")
    return LoadedRun(
        directory=directory,
        config=config,
        task=task,
        framing=framing,
        model=build_model(config.model, task.num_classes),
        variables=variables,
        parameter_count=count_parameters(variables["params"]),
    )


def _damaged_card(directory: Path, error: Exception) -> DataError:
    return DataError(
        f"the card lacks {error}" if isinstance(error, KeyError) else f"the card is damaged: {error}",
        expected="task and preprocessing, as `wbc-jax train` writes them",
        where=str(directory / CARD_FILE),
        remedy="restore the file from a copy of the run directory, or train again",
    )

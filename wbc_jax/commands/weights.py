"""Weights that a config starts from: found and tried on the network before any data are prepared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wbc_jax.catalog import TASKS
from wbc_jax.commands.run import build_model
from wbc_jax.config import Config, ModelConfig
from wbc_jax.config_morphology import has_frozen_predictor, is_predictor
from wbc_jax.errors import ConfigError
from wbc_jax.weights.load import load_pretrained_into


def weight_sources(model: ModelConfig) -> list[tuple[str, str, str]]:
    """(path, architecture of its torchvision names, branch that it fills) of each weights field that is set."""
    alone = is_predictor(model.name)
    fields = (
        (model.pretrained, model.name, ""),
        (model.pretrained_resnet, "resnet50", "resnet"),
        (model.pretrained_densenet, "densenet121", "densenet"),
        (model.pretrained_semantic, model.semantic_name or "epsanet50", "semantic"),
        (model.pretrained_map, "resnet50", "trunk" if alone else "map"),
    )
    return [(path, architecture, branch) for path, architecture, branch in fields if path is not None]


def load_weights(model: ModelConfig, variables: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Variables with the configured weights in place, and a line on each source.

    Raises:
        UsageError, WeightsError, CheckpointError: a source that is missing, damaged, or of another network.
    """
    filled, lines = dict(variables), []
    for path, architecture, branch in weight_sources(model):
        filled, report = load_pretrained_into(filled, path, architecture, branch)
        lines.append(f"{path}: {report.summary()}")
    return filled, lines


def check_weights(config: Config) -> None:
    """Every source of weights must be there and fit; nothing is compiled or placed on a device.

    Raises:
        ConfigError: a frozen attribute predictor that has learned nothing.
        UsageError, WeightsError, CheckpointError: see `load_weights`.
    """
    model = config.model
    if has_frozen_predictor(config) and model.pretrained_map is None and model.pretrained is None:
        raise _untrained_predictor()
    if not weight_sources(model):
        return
    task = TASKS.get(config.data.task, TASKS["wbc5"])  # the head of another task is replaced anyway
    network = build_model(model, task.num_classes)
    images = jax.ShapeDtypeStruct((1, config.data.image_size_px, config.data.image_size_px, 3), jnp.float32)
    shapes = jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False), images)
    filled, _ = load_weights(
        model, jax.tree.map(lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape), dict(shapes))
    )
    # ImageNet weights fill a predictor's trunk and leave its heads at the zeros that were put in here.
    if has_frozen_predictor(config) and not np.any(filled["params"]["map"]["attribute_heads"]["kernel"]):
        raise _untrained_predictor()


def _untrained_predictor() -> ConfigError:
    return ConfigError(
        "the attribute predictor is frozen with random weights",
        expected="a trained one",
        where="model.pretrained_map",
        remedy="give --model.pretrained-map RUN_DIR of a daffnet:map recipe, train in three steps "
        "(--morphology.three-step), or train it along (--model.no-freeze-map)",
    )

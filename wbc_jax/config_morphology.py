"""The rules of training on morphological attributes, and of training in three steps. [pure]"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator

from wbc_jax.config import Config, MorphologyConfig
from wbc_jax.config_problem import Problem

_ONLY_IN_THREE_STEPS = (
    "annotated_dataset",
    "other_datasets",
    "map_epochs",
    "mixed_epochs",
    "mixed_start",
    "attribute_share",
    "pseudo_threshold",
)
_ONLY_WITH_PSEUDO_LABELS = ("pseudo_weight",)


def is_predictor(name: str) -> bool:
    """Whether a network of that name predicts attributes and nothing else but the class beside them."""
    return name.startswith("map_")


def has_frozen_predictor(config: Config) -> bool:
    """Whether the network has an attribute predictor that is not trained with it."""
    model = config.model
    return model.name.startswith("daffnet") and model.morphology != "none" and model.freeze_map


def morphology_problems(config: Config, datasets: tuple[str, ...] | None) -> Iterator[Problem]:
    """Broken rules.

    Args:
        config: to be checked.
        datasets: known data sets; None: unknown.
    """
    yield from _names(config, datasets)
    yield from _without_effect(config)
    model, train, morphology = config.model, config.train, config.morphology
    if train.attribute_share > 0 and has_frozen_predictor(config):
        yield Problem(
            path="train.attribute_share",
            value=train.attribute_share,
            rule="has no effect on a frozen attribute predictor",
            suggestion="set it to 0, or model.freeze_map False",
        )
    yield from _frozen_predictor(config)
    fits = is_predictor(model.name) or (model.name.startswith("daffnet") and model.morphology != "none")
    if morphology.three_step and not fits:
        yield Problem(
            path="morphology.three_step",
            value=True,
            rule=f"needs a network with an attribute predictor, which {model.name} as configured is not",
            suggestion="choose daffnet with morphology map or map_mae, or a map_ network",
        )
    share = train.attribute_share if is_predictor(model.name) else morphology.attribute_share
    if morphology.three_step and fits and share == 0:
        yield Problem(
            path="train.attribute_share" if is_predictor(model.name) else "morphology.attribute_share",
            value=share,
            rule="leaves nothing for the attributes to be learned from",
            suggestion="set it to 0.8 as in the paper",
        )
    if morphology.pseudo_labels is not None and not morphology.three_step and train.attribute_share == 0:
        yield Problem(
            path="morphology.pseudo_labels",
            value=morphology.pseudo_labels,
            rule="has no effect without train.attribute_share",
            suggestion="set train.attribute_share to 0.8 as in the paper",
        )
    mixed = morphology.pseudo_labels is not None or (morphology.three_step and morphology.other_datasets)
    if mixed and config.data.balance == "offline":
        yield Problem(
            path="data.balance",
            value="offline",
            rule="makes copies of one data set, not of several",
            suggestion="use sampling or class_weights",
        )


def _frozen_predictor(config: Config) -> Iterator[Problem]:
    """What makes a frozen attribute predictor cheaper needs one that is frozen, and images that stay what they are."""
    asked = {"model.fold_map": config.model.fold_map, "train.cache_map": config.train.cache_map}
    for path, wanted in asked.items():
        if wanted and not has_frozen_predictor(config):
            yield Problem(
                path=path,
                value=True,
                rule="needs a frozen attribute predictor",
                suggestion="choose a daffnet with an attribute branch and model.freeze_map True",
            )
    if config.train.cache_map and config.augment.mixup_alpha > 0:
        yield Problem(
            path="train.cache_map",
            value=True,
            rule="knows nothing of images mixed by mixup",
            suggestion="set augment.mixup_alpha to 0",
        )


def _names(config: Config, datasets: tuple[str, ...] | None) -> Iterator[Problem]:
    morphology = config.morphology
    annotated = morphology.annotated_dataset or config.data.dataset
    for name in morphology.other_datasets:
        if name == annotated or morphology.other_datasets.count(name) > 1:
            yield Problem(
                path="morphology.other_datasets",
                value=name,
                rule="is the annotated data set itself" if name == annotated else "is named twice",
                suggestion="leave it out",
            )
    asked = [("other_datasets", name) for name in morphology.other_datasets]
    asked += [("annotated_dataset", annotated)] if morphology.annotated_dataset is not None else []
    for field, name in asked:
        if datasets is not None and name not in datasets:
            close = difflib.get_close_matches(name, datasets, n=1)
            hint = f"did you mean {close[0]}?" if close else f"choose from {', '.join(datasets)}"
            yield Problem(path=f"morphology.{field}", value=name, rule="is not known", suggestion=hint)


def _without_effect(config: Config) -> Iterator[Problem]:
    """Options that differ from their defaults where nothing reads them."""
    morphology, default = config.morphology, MorphologyConfig()
    idle: dict[str, str] = {}
    if not morphology.three_step:
        idle |= dict.fromkeys(_ONLY_IN_THREE_STEPS, "has no effect without morphology.three_step")
        if morphology.pseudo_labels is None:
            rule = "has no effect without pseudo-labels"
            idle |= dict.fromkeys((*_ONLY_WITH_PSEUDO_LABELS, "other_raw_dir"), rule)
    else:
        idle["pseudo_labels"] = "is made by morphology.three_step itself"
        if not morphology.other_datasets:
            rule = "has no effect without morphology.other_datasets"
            idle |= dict.fromkeys(("mixed_epochs", "mixed_start", "pseudo_threshold", "pseudo_weight"), rule)
        if is_predictor(config.model.name):
            idle["attribute_share"] = "has no effect on a predictor alone, which train.attribute_share is for"
    for field in dataclasses.fields(MorphologyConfig):
        value = getattr(morphology, field.name)
        if field.name in idle and value != getattr(default, field.name):
            yield Problem(
                path=f"morphology.{field.name}",
                value=value,
                rule=idle[field.name],
                suggestion="leave it at its default",
            )

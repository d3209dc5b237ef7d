"""How much a reproduction may cost: an arm, a budget and a seed make a config. [pure]

`paper` is the papers' size. `small` keeps the networks and shrinks images and epochs. `smoke` exercises the machinery:
small networks on a handful of images, whose figures say nothing.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from wbc_jax.config import Config
from wbc_jax.configs import get_recipe
from wbc_jax.reproduce.exhibit import Arm, Value

BudgetName = Literal["smoke", "small", "paper"]


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What an arm may cost.

    Attributes:
        name: smoke, small or paper.
        epochs_share: share of the recipe's epochs, at least one epoch.
        image_size_px, store_size_px: sides; None: the recipe's.
        images_per_class: training images of each class; None: all.
        held_out_per_class: validation and test images of each class, each; None: all.
        seeds: runs of each arm.
        small_networks: the papers' networks are replaced by their small forms, all others by one small ResNet, and of a
            series of numbers only what changes the program is kept: mixup's α is 0 or 0.2.
        quick_compile: programs are compiled without most optimisations, and by jaxlib 0.10's older emitters, which
            saves more than it costs on few images.
        changes: further fields.
        stand_in: data set that takes the place of one that is not here; None: its rows are left out.
    """

    name: BudgetName
    epochs_share: float
    image_size_px: int | None
    store_size_px: int | None
    images_per_class: int | None
    seeds: int
    small_networks: bool
    held_out_per_class: int | None = None
    quick_compile: bool = False
    changes: tuple[tuple[str, Value], ...] = ()
    stand_in: str | None = None


BUDGETS: dict[str, Budget] = {
    "smoke": Budget(
        name="smoke",
        epochs_share=0.0,
        image_size_px=48,
        store_size_px=56,
        images_per_class=8,
        seeds=1,
        small_networks=True,
        held_out_per_class=40,
        quick_compile=True,
        changes=(
            ("train.batch_size", 16),
            ("eval.batch_size", 128),
            ("eval.flip_average", False),
            ("eval.bootstrap_samples", 200),
            ("log.every_steps", 1),
            ("log.tensorboard", False),
        ),
        stand_in="synthetic_smear",
    ),
    "small": Budget(
        name="small",
        epochs_share=0.3,
        image_size_px=128,
        store_size_px=144,
        images_per_class=None,
        seeds=2,
        small_networks=False,
        changes=(("log.tensorboard", False),),
    ),
    "paper": Budget(
        name="paper",
        epochs_share=1.0,
        image_size_px=None,
        store_size_px=None,
        images_per_class=None,
        seeds=3,
        small_networks=False,
    ),
}

_SMALL = {
    "scam": "scam_tiny",
    "daffnet": "daffnet_tiny",
    "amnet": "amnet_tiny",
    "map_resnet50": "map_tiny",
}
_SMALL_OTHERWISE = "resnet_tiny"
_SMALL_SEMANTIC = "resnet_bottleneck_tiny"
_SMOKE_ALPHA = 0.2


def small_network(name: str) -> str:
    """The small network that stands for another: that of a paper's own network, else a small ResNet."""
    return name if name in _SMALL.values() else _SMALL.get(name, _SMALL_OTHERWISE)


def arm_config(arm: Arm, budget: Budget, seed: int, weights: Mapping[str, str] | None = None) -> Config:
    """The config of one run.

    Args:
        arm: what to train.
        budget: what it may cost.
        seed: of weights, order and augmentation; the split stays.
        weights: weights field -> file, of `arm.imagenet` and the predictor.
    """
    config = with_values(get_recipe(arm.recipe), {"data.dataset": arm.dataset, "train.seed": seed})
    config = with_values(config, dict(arm.changes))
    if weights:
        given: dict[str, Any] = {f"model.{name}": path for name, path in weights.items()}
        if arm.finetune_learning_rate is not None and set(weights) & {name for name, _ in arm.imagenet}:
            given["optim.learning_rate"] = arm.finetune_learning_rate
        config = with_values(config, given)
    return with_values(config, _budgeted(config, budget))


def _budgeted(config: Config, budget: Budget) -> dict[str, Value]:
    """Fields that the budget sets."""
    epochs = max(1, math.ceil(budget.epochs_share * config.train.epochs))
    values: dict[str, Value] = {
        "train.epochs": epochs,
        "data.max_images_per_class": budget.images_per_class,
        "data.max_held_out_per_class": budget.held_out_per_class,
        "eval.every_epochs": min(config.eval.every_epochs, epochs),
        "optim.piecewise_epochs": tuple(
            round(drop * epochs / config.train.epochs, 3) for drop in config.optim.piecewise_epochs
        ),
    }
    if budget.image_size_px is not None:
        values |= {"data.image_size_px": budget.image_size_px, "data.store_size_px": budget.store_size_px}
    if budget.small_networks:
        values["model.name"] = small_network(config.model.name)
        if config.model.semantic_name is not None:
            values["model.semantic_name"] = _SMALL_SEMANTIC
        if config.morphology.three_step:
            values |= {"morphology.map_epochs": epochs, "morphology.mixed_epochs": epochs}
        if config.augment.mixup_alpha > 0:
            values["augment.mixup_alpha"] = _SMOKE_ALPHA
    return values | dict(budget.changes)


def with_values(config: Config, values: Mapping[str, Any]) -> Config:
    """`config` with fields replaced by path, `{"model.attention": "cam"}`.

    Raises:
        ValueError: there is no such field.
    """
    groups: dict[str, dict[str, Any]] = {}
    for path, value in values.items():
        group, _, name = path.partition(".")
        if name not in getattr(getattr(config, group, None), "__dataclass_fields__", {}):
            raise ValueError(f"no field {path}")
        groups.setdefault(group, {})[name] = value
    replaced = {name: dataclasses.replace(getattr(config, name), **new) for name, new in groups.items()}
    return dataclasses.replace(config, **replaced)

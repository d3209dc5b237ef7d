"""Every problem of a config, found at once and before anything is compiled. [pure]

What cannot be read off the config itself (the known networks, data sets, devices, the number of training
images) comes in as `Facts`; a fact that is None is not checked.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Iterator
from dataclasses import dataclass

from wbc_jax.config import AugmentConfig, Config, ModelConfig
from wbc_jax.config_image_sizes import SMALLEST_IMAGE_PX, image_size_problems
from wbc_jax.config_json import flatten, to_dict
from wbc_jax.config_morphology import morphology_problems
from wbc_jax.config_problem import Problem
from wbc_jax.errors import ConfigError

_BRANCHES = {"resnet": "scam", "densenet": "scam", "semantic": "daffnet", "map": ("daffnet", "map")}
"""Branch whose weights can be given apart -> how the names of the networks that have it begin."""
_WEIGHT_FIELDS = ("pretrained", *(f"pretrained_{branch}" for branch in _BRANCHES))


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the surroundings offer; None: unknown, and the rules that need it are left out."""

    datasets: tuple[str, ...] | None = None
    models: tuple[str, ...] | None = None
    model_fields: tuple[str, ...] | None = None
    num_devices: int | None = None
    num_train: int | None = None


def validate(config: Config, facts: Facts | None = None) -> list[Problem]:
    """All problems of `config`, in the order of its fields; an empty list when there are none."""
    facts = Facts() if facts is None else facts
    found = [
        *_ranges(config),
        *_finite(config),
        *_names(config, facts),
        *_relations(config),
        *morphology_problems(config, facts.datasets),
        *image_size_problems(config),
        *_sizes(config, facts),
    ]
    order = {path: i for i, path in enumerate(flatten(to_dict(config)))}
    return sorted(found, key=lambda problem: order.get(problem.path, len(order)))


def require_valid(config: Config, facts: Facts | None = None) -> None:
    """Raises ConfigError with every problem, or does nothing."""
    problems = validate(config, facts)
    if problems:
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''} in the configuration"
        raise ConfigError(
            "\n  ".join([count, *map(str, problems)]), remedy="change these fields and start again"
        )


_RANGES: tuple[tuple[str, float, float, str], ...] = (
    ("data.image_size_px", SMALLEST_IMAGE_PX, 4096, "px"),
    ("data.store_size_px", SMALLEST_IMAGE_PX, 4096, "px"),
    ("data.stream_workers", 0, 256, "processes"),
    ("data.max_images_per_class", 1, math.inf, "images"),
    ("data.max_held_out_per_class", 1, math.inf, "images"),
    ("model.dropout_rate", 0, 0.99, "share"),
    ("optim.learning_rate", 1e-9, 100, "per step"),
    ("optim.base_batch_size", 1, 1_048_576, "images"),
    ("optim.warmup_epochs", 0, math.inf, "epochs"),
    ("optim.weight_decay", 0, 10, "per step"),
    ("optim.momentum", 0, 0.9999, "share kept"),
    ("optim.clip_norm", 1e-6, math.inf, "norm"),
    ("optim.accumulate_steps", 1, 4096, "batches"),
    ("optim.ema_decay", 0, 0.999999, "share kept"),
    ("augment.translation", 0, 0.5, "share of the side"),
    ("augment.brightness", 0, 1, "share"),
    ("augment.contrast", 0, 1, "share"),
    ("augment.saturation", 0, 1, "share"),
    ("augment.hue", 0, 0.5, "turns"),
    ("augment.colour_probability", 0, 1, "share"),
    ("augment.exact_share", 0, 1, "share"),
    ("augment.stain", 0, 1, "share"),
    ("augment.mixup_alpha", 0, 100, "Beta parameter"),
    ("train.epochs", 1, 100_000, "epochs"),
    ("train.batch_size", 1, 1_048_576, "images"),
    ("train.ghost_batch_size", 1, 1_048_576, "images"),
    ("train.seed", 0, 2**31 - 1, "seed"),
    ("train.label_smoothing", 0, 0.99, "share"),
    ("train.attribute_share", 0, 1, "share"),
    ("train.early_stop_patience_epochs", 1, 100_000, "epochs"),
    ("morphology.map_epochs", 1, 100_000, "epochs"),
    ("morphology.mixed_epochs", 1, 100_000, "epochs"),
    ("morphology.attribute_share", 0, 1, "share"),
    ("morphology.pseudo_threshold", 0, 1, "probability"),
    ("morphology.pseudo_weight", 0, 1000, "weight"),
    ("eval.batch_size", 1, 1_048_576, "images"),
    ("eval.every_epochs", 1, 100_000, "epochs"),
    ("eval.bootstrap_samples", 0, 1_000_000, "resamples"),
    ("checkpoint.every_steps", 1, math.inf, "steps"),
    ("checkpoint.keep", 1, 1000, "checkpoints"),
    ("log.every_steps", 1, math.inf, "steps"),
    ("runtime.num_devices", 1, 1_048_576, "devices"),
    ("runtime.num_processes", 1, 1_048_576, "processes"),
    ("runtime.process_id", 0, 1_048_575, "process"),
)


_INTERVALS: tuple[tuple[str, float, float, str, str], ...] = (
    ("augment.rotation_deg", -180, 180, "angles in degrees", "-15 15"),
    ("augment.scale", 0.1, 10, "zoom factors", "0.9 1.1"),
    ("augment.crop_area", 0.01, 1, "shares of the area", "0.08 1"),
    ("augment.crop_ratio", 0.1, 10, "ratios of width to height", "0.75 1.3333"),
)


def _ranges(config: Config) -> Iterator[Problem]:
    flat = flatten(to_dict(config))
    for path, low, high, unit in _RANGES:
        value = flat[path]
        if value is not None and math.isfinite(value) and not low <= value <= high:
            bounds = f"at least {low:g}" if math.isinf(high) else f"from {low:g} to {high:g}"
            yield Problem(
                path=path, value=value, rule=f"must be {bounds} ({unit})", suggestion="choose a value inside"
            )
    for path, lowest, highest, what, example in _INTERVALS:
        value = flat[path]
        if value is not None and not lowest <= value[0] <= value[1] <= highest:
            yield Problem(
                path=path,
                value=tuple(value),
                rule=f"must be two {what} from {lowest:g} to {highest:g}, the smaller first",
                suggestion=f"for example {example}",
            )


def _finite(config: Config) -> Iterator[Problem]:
    for path, value in flatten(to_dict(config)).items():
        values = value if isinstance(value, list) else [value]
        if any(isinstance(v, float) and not math.isfinite(v) for v in values):
            yield Problem(
                path=path, value=value, rule="must be a finite number", suggestion="write a plain number"
            )


def _names(config: Config, facts: Facts) -> Iterator[Problem]:
    for path, name, known in (
        ("data.dataset", config.data.dataset, facts.datasets),
        ("model.name", config.model.name, facts.models),
    ):
        if known is not None and name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"choose from {', '.join(known)}"
            yield Problem(path=path, value=name, rule="is not known", suggestion=hint)
    if facts.model_fields is not None:
        default = ModelConfig()
        for field in dataclasses.fields(ModelConfig):
            if field.name in ("name", *_WEIGHT_FIELDS) or field.name in facts.model_fields:
                continue
            value = getattr(config.model, field.name)
            if value != getattr(default, field.name):
                yield Problem(
                    path=f"model.{field.name}",
                    value=value,
                    rule=f"has no effect on {config.model.name}",
                    suggestion="leave it at its default, or choose a network that has it",
                )


def _relations(config: Config) -> Iterator[Problem]:
    model, optim, train = config.model, config.optim, config.train
    if optim.schedule == "piecewise" and not optim.piecewise_epochs:
        yield Problem(
            path="optim.piecewise_epochs",
            value=(),
            rule="is empty",
            suggestion="name the epochs at which it drops",
        )
    for name in ("piecewise_epochs", "piecewise_factors"):
        if optim.schedule != "piecewise" and getattr(optim, name):
            yield Problem(
                path=f"optim.{name}",
                value=getattr(optim, name),
                rule=f"has no effect with schedule {optim.schedule}",
                suggestion="set optim.schedule piecewise",
            )
    if optim.schedule == "piecewise" and len(optim.piecewise_factors) != len(optim.piecewise_epochs):
        yield Problem(
            path="optim.piecewise_factors",
            value=optim.piecewise_factors,
            rule=f"must be as many as the {len(optim.piecewise_epochs)} optim.piecewise_epochs",
            suggestion="give one factor of the peak learning rate for each of these epochs",
        )
    if not all(0 < factor <= 1 for factor in optim.piecewise_factors if math.isfinite(factor)):
        yield Problem(
            path="optim.piecewise_factors",
            value=optim.piecewise_factors,
            rule="must be above 0 and at most 1",
            suggestion="give shares of the peak learning rate",
        )
    if list(optim.piecewise_epochs) != sorted(set(optim.piecewise_epochs)):
        yield Problem(
            path="optim.piecewise_epochs",
            value=optim.piecewise_epochs,
            rule="must rise",
            suggestion="sort them",
        )
    if optim.warmup_epochs >= train.epochs and optim.warmup_epochs > 0:
        yield Problem(
            path="optim.warmup_epochs",
            value=optim.warmup_epochs,
            rule=f"must be shorter than train.epochs ({train.epochs})",
            suggestion="shorten the warm-up or train longer",
        )
    if config.augment.crop_area is None and config.augment.crop_ratio != AugmentConfig().crop_ratio:
        yield Problem(
            path="augment.crop_ratio",
            value=config.augment.crop_ratio,
            rule="has no effect without augment.crop_area",
            suggestion="set augment.crop_area, for example 0.08 1",
        )
    if not (model.use_se or model.use_ge or model.use_fusion):
        yield Problem(
            path="model.use_fusion",
            value=False,
            rule="leaves nothing of the attention when use_se and use_ge are off as well",
            suggestion="keep one of the three, or take model.name se_resnext50_32x4d",
        )
    if model.pretrained is not None and any(getattr(model, f) for f in _WEIGHT_FIELDS if f != "pretrained"):
        yield Problem(
            path="model.pretrained",
            value=model.pretrained,
            rule="cannot be combined with weights per branch",
            suggestion="give either the whole network's weights or the branches'",
        )
    for branch, networks in _BRANCHES.items():
        path = getattr(model, f"pretrained_{branch}")
        absent = {"resnet": model.branches == "densenet", "densenet": model.branches == "resnet"}
        absent["map"] = model.name.startswith("daffnet") and model.morphology == "none"
        if path is not None and (not model.name.startswith(networks) or absent.get(branch, False)):
            yield Problem(
                path=f"model.pretrained_{branch}",
                value=path,
                rule=f"needs a network with a {branch} branch",
                suggestion="use model.pretrained for a single network",
            )


def _sizes(config: Config, facts: Facts) -> Iterator[Problem]:
    batch_size = config.train.batch_size
    if config.train.ghost_batch_size is not None and config.train.execution == "pmap":
        yield Problem(
            path="train.ghost_batch_size",
            value=config.train.ghost_batch_size,
            rule="needs the whole batch in one program",
            suggestion="set train.execution jit",
        )
    asked, present = config.runtime.num_devices, facts.num_devices
    devices = asked or present
    if asked is not None and present is not None and asked > present:
        devices = present
        yield Problem(
            path="runtime.num_devices",
            value=asked,
            rule=f"exceeds the {present} present",
            suggestion="leave it out to use all",
        )
    if devices is not None and batch_size % devices:
        yield Problem(
            path="train.batch_size",
            value=batch_size,
            rule=f"must divide by the {devices} devices",
            suggestion=f"use {max(1, batch_size // devices) * devices}",
        )
    if facts.num_train is not None and batch_size > facts.num_train:
        yield Problem(
            path="train.batch_size",
            value=batch_size,
            rule=f"exceeds the {facts.num_train} training images",
            suggestion=f"use {2 ** int(math.log2(max(1, facts.num_train)))} or less",
        )

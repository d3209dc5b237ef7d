"""Networks by name. Needs only jax and flax: no data set, configuration or file is behind a model."""

from __future__ import annotations

import difflib
from typing import Any, Literal, get_args, get_origin, get_type_hints

from flax import linen as nn

from wbc_jax.errors import UsageError
from wbc_jax.models.amnet import AMNETS, AMNet
from wbc_jax.models.daffnet import DAFFNETS, DAFFNet
from wbc_jax.models.densenet import DENSENETS, DenseNet
from wbc_jax.models.morphology import MORPHOLOGY_PREDICTORS, MorphologyPredictor
from wbc_jax.models.resnet import RESNETS, ResNet
from wbc_jax.models.scam import SCAM, SCAMS
from wbc_jax.models.zoo import ZOO

_MODELS: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {
    **{name: (SCAM, fields) for name, fields in SCAMS.items()},
    **{name: (DAFFNet, fields) for name, fields in DAFFNETS.items()},
    **{name: (AMNet, fields) for name, fields in AMNETS.items()},
    **{name: (MorphologyPredictor, fields) for name, fields in MORPHOLOGY_PREDICTORS.items()},
    **{name: (ResNet, fields) for name, fields in RESNETS.items()},
    **{name: (DenseNet, fields) for name, fields in DENSENETS.items()},
    **ZOO,
}


def list_models() -> tuple[str, ...]:
    """Every name `create_model` knows."""
    return tuple(_MODELS)


def model_fields(name: str) -> tuple[str, ...]:
    """The options `create_model` takes for that network.

    Raises:
        UsageError: unknown name.
    """
    network, _ = _find(name)
    return tuple(f for f in network.__dataclass_fields__ if f not in ("parent", "name"))


def create_model(name: str, *, num_classes: int | None, **fields: Any) -> nn.Module:
    """Build a network; nothing is computed before `init` or `apply`.

    Args:
        name: one of `list_models()`.
        num_classes: outputs of the head; None for a trunk that returns its endpoints only.
        **fields: the network's options, see `model_fields(name)`. All take `dtype` (activations) and
            `bn_axis_name` (a pmap axis).

    Raises:
        UsageError: unknown name or option, or an option outside its choices; every problem at once.
    """
    network, preset = _find(name)
    problems = [
        f"unknown option {field!r} of {name}{_suggest(field, model_fields(name))}"
        for field in fields
        if field not in model_fields(name)
    ]
    hints = get_type_hints(network)
    for field, value in fields.items():
        if get_origin(hints.get(field)) is Literal and value not in get_args(hints[field]):
            choices = get_args(hints[field])
            problems.append(f"{field}={value!r} of {name}{_suggest(str(value), choices)}, one of {choices}")
    if num_classes is None and type(None) not in get_args(hints["num_classes"]):
        problems.append(f"num_classes=None: {name} has no form without a head")
    if num_classes is not None and num_classes < 1:
        problems.append(f"num_classes={num_classes}: at least 1")
    if problems:
        raise UsageError(
            "\n".join(problems),
            expected="options " + ", ".join(model_fields(name)),
            where=f"create_model({name!r})",
        )
    return network(**{**preset, "num_classes": num_classes, **fields})


def _find(name: str) -> tuple[type[nn.Module], dict[str, Any]]:
    if name not in _MODELS:
        raise UsageError(
            f"unknown network {name!r}{_suggest(name, list_models())}",
            expected="one of " + ", ".join(list_models()),
            where="model.name",
        )
    return _MODELS[name]


def _suggest(word: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""

"""Named intermediates of a network, and how a gradient with respect to one of them is taken.

A model returns every named intermediate in its endpoints dict. Grad-CAM needs more: the derivative of a logit with
respect to one. So each recorded value gets a perturbation added when, and only when, the caller passes one:

    zeros = jnp.zeros(shape_of_endpoint, dtype_of_endpoint)
    def score(perturbation):
        tapped = {**variables, **tap_variables("attended", perturbation)}
        logits, endpoints = model.apply(tapped, images, train=False)
        return logits[:, k].sum(), endpoints["attended"]
    gradient, activation = jax.grad(score, has_aux=True)(zeros)

Nothing is stored by `init` and nothing is computed without a perturbation.
"""

from __future__ import annotations

from typing import Any

import jax
from flax import linen as nn

Endpoints = dict[str, jax.Array]
COLLECTION = "perturbations"


def record(module: nn.Module, endpoints: Endpoints, name: str, value: jax.Array) -> jax.Array:
    """Store `value` under `name` and return what the network should go on with."""
    if module.has_variable(COLLECTION, f"{name}_tap"):
        value = value + module.get_variable(COLLECTION, f"{name}_tap").astype(value.dtype)
    endpoints[name] = value
    return value


def tap_variables(endpoint: str, perturbation: jax.Array) -> dict[str, Any]:
    """The extra variables that add `perturbation` to that endpoint; `resnet/stage4` is stage4 of submodule resnet."""
    *submodules, name = endpoint.split("/")
    tree: dict[str, Any] = {f"{name}_tap": perturbation}
    for submodule in reversed(submodules):
        tree = {submodule: tree}
    return {COLLECTION: tree}

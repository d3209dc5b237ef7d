"""What each morphological attribute adds to the logit of a class, by taking one attribute away at a time. [pure]

An attribute is taken away by putting what is known without looking, its prior, in the place of the network's
probabilities of its values; everything behind them is computed again (occlusion, Zeiler and Fergus 2014, of an
attribute instead of a patch). The trunk that looks at the image itself stays as it is.
"""

from __future__ import annotations

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wbc_jax.catalog import ABSENT, ATTRIBUTES
from wbc_jax.models.attribute_groups import GROUP_SLICES


def uniform_prior() -> np.ndarray:
    """Every value of an attribute equally likely, float32 `(31,)`."""
    return np.concatenate([np.full(len(a.values), 1 / len(a.values), np.float32) for a in ATTRIBUTES])


def value_frequencies(attributes: np.ndarray) -> np.ndarray | None:
    """Share of each value among the annotated images, float32 `(31,)`; None unless every attribute is annotated.

    Args:
        attributes: int `(n, 11)`, value indices, -1 where not annotated.
    """
    shares = []
    for column, attribute in enumerate(ATTRIBUTES):
        known = attributes[attributes[:, column] != ABSENT, column]
        if not len(known):
            return None
        shares.append(np.bincount(known, minlength=len(attribute.values)) / len(known))
    return np.concatenate(shares).astype(np.float32)


def occlude_each(attribute_logits: jax.Array, prior: jax.Array) -> jax.Array:
    """The logits with one attribute after the other replaced, `(B, 31)` -> `(11, B, 31)`.

    Args:
        attribute_logits: float32 `(B, 31)`.
        prior: float32 `(31,)`, probabilities that take the place of an attribute's own.
    """
    # A value that never occurs in training keeps a finite logit.
    replacement = jnp.log(jnp.maximum(prior, jnp.finfo(jnp.float32).tiny))
    members = np.zeros((len(GROUP_SLICES), len(prior)), np.bool_)
    for row, part in zip(members, GROUP_SLICES, strict=True):
        row[part] = True
    return jnp.where(members[:, None, :], replacement[None, None, :], attribute_logits[None])


def decides_by_attributes(model: Any) -> bool:
    """Whether the network can be given attributes in the place of its own: only then do they bear on the class."""
    takes = "attribute_logits" in inspect.signature(type(model).__call__).parameters
    return takes and getattr(model, "morphology", "map") != "none"


def class_gradient_reaches(model: Any, endpoint: str) -> bool:
    """Whether the gradient of a class logit arrives at a map; DAFFNet may stop it before its predictor."""
    return not endpoint.startswith("map/") or getattr(model, "differentiates_map", True)


def attribute_contributions(
    model: Any,
    variables: Any,
    images: jax.Array,
    attribute_logits: jax.Array,
    prior: jax.Array,
    class_index: jax.Array,
) -> jax.Array:
    """How much the logit of a class falls when an attribute is taken away, float32 `(B, 11)`.

    Positive: what was seen of this attribute speaks for the class.

    Args:
        model: `decides_by_attributes`; called as `apply(variables, images, train=False, attribute_logits=…)`.
        variables: `{"params", "batch_stats"}`.
        images: float `(B, H, W, 3)`, normalised as for the network.
        attribute_logits: float32 `(B, 31)`, the network's own for these images.
        prior: float32 `(31,)`, see `occlude_each`.
        class_index: int `(B,)`, the class of each image.
    """

    def chosen_logit(attribute_logits: jax.Array) -> jax.Array:
        logits, _ = model.apply(variables, images, train=False, attribute_logits=attribute_logits)
        logits = logits.astype(jnp.float32)  # (B, K)
        return jnp.take_along_axis(logits, class_index[:, None], axis=-1)[:, 0]  # (B,)

    # The images are not mapped over, so that what depends on them alone is computed once.
    occluded = jax.vmap(chosen_logit)(occlude_each(attribute_logits, prior))  # (11, B)
    return (chosen_logit(attribute_logits)[None] - occluded).T  # (B, 11)

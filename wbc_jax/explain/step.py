"""Everything that explains a batch of cells, in one compiled step. [pure]"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from wbc_jax.explain.attributes import attribute_contributions, decides_by_attributes
from wbc_jax.explain.grad_cam import grad_cam
from wbc_jax.train.augment import IMAGENET_MEAN, IMAGENET_STD, center
from wbc_jax.train.steps import Prediction, PredictStep


class Explained(NamedTuple):
    """B cells explained.

    Attributes:
        prediction: what the network says of them.
        heat: float32 `(B, H, W)` in [0, 1], Grad-CAM of the explained class.
        seen: uint8 `(B, H, W, 3)`, what the network saw.
        contributions: float32 `(B, 11)`, what each attribute adds to the logit of the explained class; None for a
            network that does not decide by attributes.
    """

    prediction: Prediction
    heat: jax.Array
    seen: jax.Array
    contributions: jax.Array | None


def make_explain_step(
    model: Any,
    predict: PredictStep,
    endpoint: str,
    class_index: int | None,
    *,
    image_size_px: int,
    prior: np.ndarray,
) -> Callable[[Any, jax.Array], Explained]:
    """`(variables, uint8 (B, S, S, 3)) -> Explained`.

    Args:
        model: network.
        predict: its prediction step.
        endpoint: feature map that Grad-CAM explains.
        class_index: class to explain; None: each image's most probable one.
        image_size_px: H and W.
        prior: float32 `(31,)`, what takes the place of an attribute that is taken away.
    """
    mean, std = (jnp.asarray(v, jnp.float32)[None, None, None, :] for v in (IMAGENET_MEAN, IMAGENET_STD))

    def step(variables: Any, images_u8: jax.Array) -> Explained:
        images = center(images_u8, image_size_px)  # (B, H, W, 3)
        said = predict(variables, images_u8)
        best = jnp.argmax(said.probabilities, axis=-1)
        chosen = best if class_index is None else jnp.full_like(best, class_index)  # (B,)
        contributions = None
        if decides_by_attributes(model):
            _, endpoints = model.apply(variables, images, train=False)
            logits = endpoints["attribute_logits"].astype(jnp.float32)  # (B, 31)
            contributions = attribute_contributions(
                model, variables, images, logits, jnp.asarray(prior), chosen
            )
        return Explained(
            prediction=said,
            heat=grad_cam(model, variables, images, endpoint, chosen),
            seen=jnp.clip((images * std + mean) * 255.0 + 0.5, 0.0, 255.0).astype(jnp.uint8),
            contributions=contributions,
        )

    return step

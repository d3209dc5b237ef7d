"""Grad-CAM on any endpoint of any network. [pure]

Selvaraju et al. 2017, with the conventions users know from jacobgil/pytorch-grad-cam: gradient of the class logit,
weights as its spatial mean, ReLU, each map scaled to [0, 1].
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from wbc_jax.models.endpoints import tap_variables


def grad_cam(
    model: Any, variables: Any, images: jax.Array, endpoint: str, class_index: jax.Array | int | None = None
) -> jax.Array:
    """Where in each image the evidence for a class lies, float32 `(B, H, W)` in [0, 1], at the size of the images.

    Args:
        model: network of the contract `(logits, endpoints) = apply(variables, images, train=False)`.
        variables: `{"params", "batch_stats"}`.
        images: float `(B, H, W, 3)`, normalised as for the network.
        endpoint: name of a feature map `(B, h, w, C)` among the endpoints.
        class_index: class whose logit is explained, one for all or int `(B,)`; None: each image's arg-max.

    Raises:
        ValueError: there is no such endpoint, or it is not a feature map.
    """
    maps = raw_grad_cam(model, variables, images, endpoint, class_index)
    resized = jax.image.resize(_scaled(maps), (*maps.shape[:1], *images.shape[1:3]), method="bilinear")
    return jnp.clip(resized, 0.0, 1.0)  # (B, H, W)


def raw_grad_cam(
    model: Any, variables: Any, images: jax.Array, endpoint: str, class_index: jax.Array | int | None = None
) -> jax.Array:
    """The map before scaling and resizing, float32 `(B, h, w)`, not negative. Arguments as in `grad_cam`."""
    shape = _map_shape(model, variables, images, endpoint)

    def chosen_logits(offset: jax.Array) -> tuple[jax.Array, jax.Array]:
        tapped = {**variables, **tap_variables(endpoint, offset)}
        logits, endpoints = model.apply(tapped, images, train=False)
        logits = logits.astype(jnp.float32)
        index = jnp.argmax(logits, axis=-1) if class_index is None else class_index
        index = jnp.broadcast_to(jnp.asarray(index, jnp.int32), (images.shape[0],))
        chosen = jnp.take_along_axis(logits, index[:, None], axis=-1)
        # Images do not influence each other in evaluation, so the gradient of the sum holds each image's own.
        return chosen.sum(), endpoints[endpoint]

    # The derivative with respect to an offset of 0 is that with respect to the map itself.
    gradient, features = jax.grad(chosen_logits, has_aux=True)(jnp.zeros(shape, jnp.float32))
    weights = gradient.mean(axis=(1, 2), keepdims=True)  # (B, 1, 1, C)
    return jax.nn.relu((weights * features.astype(jnp.float32)).sum(axis=-1))  # (B, h, w)


def _scaled(maps: jax.Array) -> jax.Array:
    lowest = maps.min(axis=(1, 2), keepdims=True)
    shifted = maps - lowest
    return shifted / (1e-7 + shifted.max(axis=(1, 2), keepdims=True))


def feature_maps(model: Any, variables: Any, images: Any) -> dict[str, tuple[int, ...]]:
    """Shape `(B, h, w, C)` of each endpoint that Grad-CAM can explain, in the order of computation.

    A map of one channel is a gate or a mask, with nothing to weight.

    Args:
        model, variables: as in `grad_cam`.
        images: `(B, H, W, 3)`, array or `jax.ShapeDtypeStruct`; nothing is computed.
    """
    found: dict[str, tuple[int, ...]] = {}

    def note(variables: Any, images: jax.Array) -> jax.Array:
        logits, endpoints = model.apply(variables, images, train=False)
        # Noted while tracing: transformations sort dicts by key.
        found.update(
            {n: value.shape for n, value in endpoints.items() if value.ndim == 4 and value.shape[-1] > 1}
        )
        return logits

    jax.eval_shape(note, variables, images)
    return found


def _map_shape(model: Any, variables: Any, images: jax.Array, endpoint: str) -> tuple[int, ...]:
    maps = feature_maps(model, variables, images)
    if endpoint not in maps:
        raise ValueError(f"no feature map {endpoint!r}; there are {', '.join(maps)}")
    return maps[endpoint]

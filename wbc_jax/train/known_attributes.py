"""A frozen attribute predictor computed once: its output for a few views of each image, looked up inside the step.

Exact without augmentation, where an image always has the same view. With mirrors each step draws one of the four
mirrored views of an image; what else augmentation does, the predictor then does not see.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from wbc_jax.train.augment import center

Lookup = Callable[[jax.Array, jax.Array], jax.Array]
"""(key, int32 ids (B,)) -> float32 (B, 31), the attribute logits of those images."""


def make_view_step(
    model: nn.Module, *, image_size_px: int, mirrored: bool, endpoint: str = "attribute_logits"
) -> Callable[[Any, jax.Array], jax.Array]:
    """`views(variables, images)`: uint8 `(B, S, S, 3)` -> an endpoint float32 `(B, V, D)`, in evaluation.

    Args:
        model: network; under jit what the endpoint does not need is left out.
        image_size_px: side of the network's input, px; the centre is taken.
        mirrored: the image, mirrored top to bottom, left to right, and both, V = 4; otherwise the image alone, V = 1.
        endpoint: a vector of the network, D = 31 for attribute logits.
    """

    def views(variables: Any, images_u8: jax.Array) -> jax.Array:
        images = center(images_u8, image_size_px)  # (B, H, W, 3)
        seen = [images]
        if mirrored:
            seen += [images[:, ::-1], images[:, :, ::-1], images[:, ::-1, ::-1]]
        stacked = jnp.stack(seen, axis=1).reshape(-1, *images.shape[1:])  # (B V, H, W, 3)
        endpoints: Any = model.apply(variables, stacked, train=False)[1]
        vectors = endpoints[endpoint].astype(jnp.float32)
        return vectors.reshape(images.shape[0], len(seen), -1)  # (B, V, D)

    return views


def lookup(table: Any) -> Lookup:
    """Rows of a table by image id; of several views one is drawn for each image.

    Args:
        table: float32 `(N, V, 31)` on the host or the device, all N ids that a batch may hold.
    """

    def find(key: jax.Array, ids: jax.Array) -> jax.Array:
        values = jnp.asarray(table, jnp.float32)
        if values.shape[1] == 1:
            return values.at[ids, 0].get(mode="clip")  # (B, 31)
        view = jax.random.randint(key, ids.shape, 0, values.shape[1], jnp.int32)
        return values.at[ids, view].get(mode="clip")  # (B, 31)

    return find


def known_inputs(find: Lookup | None, key: jax.Array, ids: jax.Array) -> dict[str, jax.Array]:
    """What the network is given by keyword beside a batch's images; nothing where nothing is known.

    `key` is the augmentation's; the view is drawn with one folded from it.
    """
    return {} if find is None else {"attribute_logits": find(jax.random.fold_in(key, 1), ids)}

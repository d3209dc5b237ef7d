"""The embedded data sets with few images; as a script, `wbc-jax` on them with networks that compile at once.

python tests/small_smears.py train --config daffnet:tiny …
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from wbc_jax import models
from wbc_jax.cli import main
from wbc_jax.commands import conclude, results
from wbc_jax.data.registry import builder_class
from wbc_jax.models.layers import BatchNorm, Linear
from wbc_jax.models.resnet import RESNETS

COUNTS = {
    "synthetic_smear": {"train": 60, "val": 20, "test": 20},
    "synthetic_smear_plain": {"train": 30, "val": 10, "test": 10},
}

STAGED = (
    "--data.image-size-px", "32",
    "--data.store-size-px", "36",
    "--data.max-images-per-class", "8",
    "--train.batch-size", "16",
    "--train.epochs", "2",
    "--morphology.map-epochs", "2",
    "--morphology.mixed-epochs", "2",
    "--log.every-steps", "1",
    "--log.no-tensorboard",
    "--augment.no-enabled",
    "--checkpoint.every-steps", "1",
    "--eval.every-epochs", "1",
    "--eval.bootstrap-samples", "10",
)  # fmt: skip
"""`daffnet:tiny` in seconds: 40 and 30 images, 2 or 4 steps an epoch."""


def shrink(
    set_attribute: Callable[[object, str, object], None] = setattr,
    set_item: Callable[[dict, str, object], None] = dict.__setitem__,
) -> None:
    """Few images, and networks that compile in seconds; tests pass the methods of `monkeypatch`."""
    for name, counts in COUNTS.items():
        set_attribute(builder_class(name), "COUNTS", counts)
    for name in ("resnet_tiny", "epsanet_tiny"):
        set_item(RESNETS, name, {**RESNETS[name], "stage_sizes": (1,), "stem_stride": 4})


class PooledPredictor(nn.Module):
    """Attributes and classes from 4x4 mean colours: compiles at once, and its weights are not negligible."""

    num_classes: int | None
    dtype: Any = jnp.float32
    bn_axis_name: str | None = None

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool, use_running_average: bool | None = None) -> Any:
        x = image_means(images)
        running = not train if use_running_average is None else use_running_average
        x = Linear(16, name="hidden")(x)[:, None, None, :]  # (B, 1, 1, 16)
        x = nn.relu(BatchNorm(name="bn")(x, use_running_average=running))[:, 0, 0, :]
        endpoints = {"attribute_logits": Linear(31, name="attribute_heads")(x)}
        if self.num_classes is None:
            return endpoints
        return Linear(self.num_classes, name="logits")(x), endpoints


class PooledFusion(nn.Module):
    """Classes from mean colours and what a predictor says of them."""

    num_classes: int
    map_name: str = "map_tiny"
    dtype: Any = jnp.float32
    bn_axis_name: str | None = None

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool, use_running_average: bool | None = None) -> Any:
        endpoints = PooledPredictor(None, name="map")(images, train=False)
        x = jnp.concatenate([image_means(images), endpoints["attribute_logits"]], axis=-1)
        return Linear(self.num_classes, name="logits")(x), endpoints


def image_means(images: jax.Array) -> jax.Array:
    """(B, S, S, 3) -> (B, 48)"""
    batch, side = images.shape[0], images.shape[1]
    cells = images.reshape(batch, 4, side // 4, 4, side // 4, 3)
    return cells.mean(axis=(2, 4)).reshape(batch, 48)


def leave_out_what_takes_long() -> None:
    """Pooled colours for networks, and no figures."""
    models._MODELS.update({"map_tiny": (PooledPredictor, {}), "daffnet_tiny": (PooledFusion, {})})
    results.draw_all = lambda _, folder, __: folder.mkdir(parents=True, exist_ok=True)
    results.attribute_confusion_figure = lambda *_: None
    conclude.training_figure = lambda *_: None


if __name__ == "__main__":
    shrink()
    leave_out_what_takes_long()
    sys.exit(main())

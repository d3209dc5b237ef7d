"""Networks of other authors that the papers compare with, each as published, under their usual names."""

from __future__ import annotations

from typing import Any

from flax import linen as nn

from wbc_jax.models.zoo.vgg import VGG, VGGS
from wbc_jax.models.zoo.vit import VITS, VisionTransformer

ZOO: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {
    **{name: (VGG, fields) for name, fields in VGGS.items()},
    **{name: (VisionTransformer, fields) for name, fields in VITS.items()},
}
"""Registry name -> network and its fields."""

"""Networks of other authors that the papers compare with, each as published, under their usual names."""

from __future__ import annotations

from typing import Any

from flax import linen as nn

from wbc_jax.models.zoo.alexnet import ALEXNETS, AlexNet
from wbc_jax.models.zoo.dpn import DPN, DPNS
from wbc_jax.models.zoo.inception_v4 import INCEPTIONS_V4, InceptionV4
from wbc_jax.models.zoo.mobilenet_v1 import MOBILENETS_V1, MobileNetV1
from wbc_jax.models.zoo.mobilenet_v2 import MOBILENETS_V2, MobileNetV2
from wbc_jax.models.zoo.shufflenet_v2 import SHUFFLENETS_V2, ShuffleNetV2
from wbc_jax.models.zoo.vgg import VGG, VGGS
from wbc_jax.models.zoo.vit import VITS, VisionTransformer

ZOO: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {
    **{name: (AlexNet, fields) for name, fields in ALEXNETS.items()},
    **{name: (VGG, fields) for name, fields in VGGS.items()},
    **{name: (MobileNetV1, fields) for name, fields in MOBILENETS_V1.items()},
    **{name: (MobileNetV2, fields) for name, fields in MOBILENETS_V2.items()},
    **{name: (ShuffleNetV2, fields) for name, fields in SHUFFLENETS_V2.items()},
    **{name: (DPN, fields) for name, fields in DPNS.items()},
    **{name: (InceptionV4, fields) for name, fields in INCEPTIONS_V4.items()},
    **{name: (VisionTransformer, fields) for name, fields in VITS.items()},
}
"""Registry name -> network and its fields."""

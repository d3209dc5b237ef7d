"""Every architecture whose weights other libraries publish, with all its arrays."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from functools import partial

from wbc_jax.weights.naming.alexnet import alexnet_leaves
from wbc_jax.weights.naming.densenet import DENSENETS, densenet_leaves
from wbc_jax.weights.naming.dpn import DPNS
from wbc_jax.weights.naming.inception_v4 import INCEPTIONS_V4
from wbc_jax.weights.naming.leaf import Leaf
from wbc_jax.weights.naming.mobilenet_v1 import MOBILENETS_V1
from wbc_jax.weights.naming.mobilenet_v2 import MOBILENETS_V2
from wbc_jax.weights.naming.resnet import RESNETS, SE_RESNETS
from wbc_jax.weights.naming.shufflenet_v2 import SHUFFLENETS_V2
from wbc_jax.weights.naming.vgg import VGGS, vgg_leaves
from wbc_jax.weights.naming.vit import VITS

Listing = Callable[[int | None], Iterator[Leaf]]
"""All arrays of an architecture for that number of classes; None: without the head."""

HEADS: tuple[str, ...] = ("fc", "classifier")
"""Our name of the classifying layer, one of these in every table."""

TORCHVISION: dict[str, Listing] = {
    **{arch: form.leaves for arch, form in RESNETS.items()},
    **{arch: partial(densenet_leaves, sizes) for arch, sizes in DENSENETS.items()},
    **{arch: partial(vgg_leaves, sizes) for arch, sizes in VGGS.items()},
    **{arch: form.leaves for arch, form in VITS.items()},
    "alexnet": alexnet_leaves,
    **{arch: form.leaves for arch, form in MOBILENETS_V2.items()},
    **{arch: form.leaves for arch, form in SHUFFLENETS_V2.items()},
}
"""Those that torchvision has a module of; names are that module's."""

TABLES: dict[str, Listing] = {
    **TORCHVISION,
    **{arch: form.leaves for arch, form in SE_RESNETS.items()},
    "dist_resnet50": RESNETS["resnet50"].leaves,
    **{arch: form.leaves for arch, form in MOBILENETS_V1.items()},
    **{arch: form.leaves for arch, form in DPNS.items()},
    **{arch: form.leaves for arch, form in INCEPTIONS_V4.items()},
}

ARCHITECTURES: tuple[str, ...] = tuple(TABLES)
TORCHVISION_ARCHITECTURES: tuple[str, ...] = tuple(TORCHVISION)


@functools.cache
def leaves(arch: str, num_classes: int | None = 1000) -> tuple[Leaf, ...]:
    """Every array in the torch module's order, without `num_batches_tracked`; None: without the head.

    Raises:
        KeyError: `arch` is not one of `ARCHITECTURES`.
    """
    return tuple(TABLES[arch](num_classes))


def head_leaf(arch: str) -> Leaf:
    """The matrix of the classifying layer, as for one class."""
    paths = {f"params/{head}/kernel" for head in HEADS}
    return next(leaf for leaf in leaves(arch, 1) if leaf.path in paths)


def head_name(arch: str) -> str:
    """Our name of the classifying layer."""
    return head_leaf(arch).path.split("/")[1]


def parameter_count(arch: str, num_classes: int | None = 1000) -> int:
    """Trainable scalars, running statistics not counted."""
    return sum(math.prod(leaf.shape) for leaf in leaves(arch, num_classes) if leaf.path.startswith("params/"))

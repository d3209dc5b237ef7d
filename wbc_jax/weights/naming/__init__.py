"""Other libraries' parameter names and ours, array by array. Pure: no files, no torch.

Every array of an architecture is listed with both names and its shape (one file per family of networks), so a state
dict is matched by name and never by order. The names are torchvision's where it has the network, otherwise those of
the library whose weights people use: timm for the SE networks.
"""

from wbc_jax.weights.naming.leaf import Leaf
from wbc_jax.weights.naming.match import fitting_architecture, from_torch, to_torch
from wbc_jax.weights.naming.report import NameReport, ShapeMismatch
from wbc_jax.weights.naming.spellings import canonical_torch_name, objection, remark
from wbc_jax.weights.naming.tables import (
    ARCHITECTURES,
    TORCHVISION_ARCHITECTURES,
    head_leaf,
    head_name,
    leaves,
    parameter_count,
)

__all__ = [
    "ARCHITECTURES",
    "TORCHVISION_ARCHITECTURES",
    "Leaf",
    "NameReport",
    "ShapeMismatch",
    "canonical_torch_name",
    "fitting_architecture",
    "from_torch",
    "head_leaf",
    "head_name",
    "leaves",
    "objection",
    "parameter_count",
    "remark",
    "to_torch",
]

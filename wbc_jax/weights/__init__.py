"""Weights files: torchvision names to Flax paths and back, safe readers, download with digest."""

from wbc_jax.weights.download import fetch, fetch_pretrained
from wbc_jax.weights.load import (
    convert_torchvision,
    load_pretrained_into,
    load_variables,
    read_metadata,
    save_variables,
    to_torchvision,
)
from wbc_jax.weights.merge import MergeReport, merge_pretrained

__all__ = [
    "MergeReport",
    "convert_torchvision",
    "fetch",
    "fetch_pretrained",
    "load_pretrained_into",
    "load_variables",
    "merge_pretrained",
    "read_metadata",
    "save_variables",
    "to_torchvision",
]

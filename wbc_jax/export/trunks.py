"""Trained trunks as torchvision's modules load them, or timm's where torchvision has no such network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wbc_jax.errors import UsageError
from wbc_jax.weights.load import convert_torchvision, to_torchvision
from wbc_jax.weights.merge import branch, flatten, unflatten
from wbc_jax.weights.naming import ARCHITECTURES
from wbc_jax.weights.readers import SAFETENSORS_SUFFIX, TORCH_SUFFIXES, write_arrays

SUFFIXES = (*TORCH_SUFFIXES, SAFETENSORS_SUFFIX)


def torchvision_trunks(name: str, model: Any, variables: Mapping[str, Any]) -> dict[str, str]:
    """Branch -> torch architecture of each trunk in a network; the branch "" is the whole network.

    Args:
        name: of the network, as in `create_model`.
        model: the network.
        variables: its variables.

    Raises:
        UsageError: it has a trunk that neither torchvision nor timm has, or one that is cut short.
    """
    if hasattr(model, "resnet_name"):
        trunks = {"resnet": model.resnet_name, "densenet": model.densenet_name}
        trunks = {part: arch for part, arch in trunks.items() if part in variables["params"]}
    elif hasattr(model, "trunk_name"):
        trunks = {"trunk": model.trunk_name}
    else:
        trunks = {"": name}
    unknown = [arch for arch in trunks.values() if arch not in ARCHITECTURES]
    if unknown:
        raise UsageError(
            f"torchvision has no {' and no '.join(unknown)}",
            expected=f"a network whose trunks are among {', '.join(ARCHITECTURES)}",
            where=f"network {name}",
            remedy="export with --format safetensors or stablehlo, which take any network",
        )
    if getattr(model, "cut", "last") != "last":
        raise UsageError(
            f"the trunks of this {name} are cut at the {model.cut}x{model.cut} stage",
            expected="whole trunks, model.cut last",
            where=f"network {name}",
            remedy="export with --format safetensors or stablehlo, which take any network",
        )
    return trunks


def trunk_path(path: Path, part: str) -> Path:
    """`scam.pth` -> `scam_resnet.pth` for a branch, `path` itself for a whole network."""
    return path.with_name(f"{path.stem}_{part}{path.suffix}") if part else path


def write_trunks(path: Path, trunks: Mapping[str, str], variables: Mapping[str, Any]) -> dict[str, Path]:
    """A state dict for each trunk: branch -> file.

    Raises:
        WeightsError: torch is missing for .pth or .pt, or a write failed.
    """
    files = {part: trunk_path(path, part) for part in trunks}
    for part, arch in trunks.items():
        own = branch(variables, part) if part else variables
        write_arrays(files[part], to_torchvision(arch, own), {"format": "pt", "arch": arch})
    return files


def variables_from_trunks(
    files: Mapping[str, Path], trunks: Mapping[str, str], variables: Mapping[str, Any]
) -> dict[str, Any]:
    """`variables` with every trunk replaced by what its file holds: the way back, for the check."""
    flat = flatten(variables)
    for part, path in files.items():
        for name, array in flatten(convert_torchvision(trunks[part], path)).items():
            collection, _, rest = name.partition("/")
            key = f"{collection}/{part}/{rest}" if part else name
            if np.shape(flat[key]) != np.shape(array):
                raise ValueError(f"{key}: {np.shape(array)} instead of {np.shape(flat[key])}")
            flat[key] = array
    return unflatten(flat)

"""Where published weights go in a network that is built around, or derived from, the network they belong to.

EPSANet shares all but its 3x3 convolutions with ResNet, DAFFNet holds such a network and a ResNet50, an attribute
predictor and WBC-AMNet hold a trunk. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from wbc_jax.models.fold import fold_batch_norm

PUBLISHED: dict[str, str] = {
    "epsanet50": "resnet50",
    "epsanet101": "resnet101",
    "map_resnet50": "resnet50",
    "daffnet": "resnet50",
    "amnet": "se_resnext50_32x4d",
}
"""Network of ours -> the architecture whose published weights it starts from; the others have weights of their own."""

HEADS: tuple[str, ...] = ("fc", "classifier", "logits")
"""First path component of the layer whose width is the number of classes, in all networks of the package."""

OPTIONAL: dict[str, tuple[str, ...]] = {"psa": ("conv2",), "spatial_gate": ()}
"""Parts that a derived network adds to a block of the published one -> the layers that they take the place of."""

_TRUNKS = ("trunk", "semantic", "map/trunk")


def places(target: Iterable[str], source: Iterable[str]) -> tuple[str, ...]:
    """Module paths in the network that the weights fill, `""` for the network itself.

    A network that has a module of the file's is the file's own or derived from it; otherwise the file is a trunk and
    goes into every trunk that the network holds.

    Args:
        target: paths of the network, or of the branch in question, `"params/semantic/conv1/kernel"`.
        source: paths of the weights, `"params/conv1/kernel"`.
    """
    target = tuple(target)
    shared = _modules(target) & _modules(source) - set(HEADS)
    held = tuple(trunk for trunk in _TRUNKS if any(p.startswith(f"params/{trunk}/") for p in target))
    return held if held and not shared else ("",)


def absent_parts(source: Iterable[str]) -> frozenset[str]:
    """Those of `OPTIONAL` that the weights have nothing of."""
    present = {part for path in source for part in path.split("/")}
    return frozenset(part for part in OPTIONAL if part not in present)


def optional_part(path: str) -> tuple[str, str] | None:
    """(block, part) of a path below one of `OPTIONAL`; the block of the network itself is `"params"`."""
    parts = path.split("/")
    for position, part in enumerate(parts):
        if part in OPTIONAL:
            return "/".join(parts[:position]), part
    return None


def fold_like(target: Iterable[str], pretrained: Mapping[str, Any]) -> Mapping[str, Any]:
    """The weights with BatchNorm merged into the convolutions where the network at that place has none."""
    paths = set(target)
    folded = any(path.endswith("conv1/bias") for path in paths) and not any("/bn1/" in path for path in paths)
    return fold_batch_norm(pretrained) if folded and "batch_stats" in pretrained else pretrained


def _modules(paths: Iterable[str]) -> set[str]:
    return {path.split("/")[1] for path in paths}

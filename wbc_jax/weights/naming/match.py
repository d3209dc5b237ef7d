"""State dicts to Flax arrays and back, matched by name and shape, never by order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from wbc_jax.weights.naming.report import NameReport, ShapeMismatch
from wbc_jax.weights.naming.spellings import canonical_state, canonical_torch_name
from wbc_jax.weights.naming.tables import ARCHITECTURES, head_leaf, leaves


def from_torch(arch: str, state: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], NameReport]:
    """Flax arrays by path (`"params/conv1/kernel"`) from a state dict of `arch`.

    The number of classes is read from the head; a state dict without a head gives a trunk. The arrays are
    complete and right only if the report is `ok`; otherwise they are empty.
    """
    named, repeated = canonical_state(state, {leaf.torch_name for leaf in leaves(arch, 1)})
    classes = _head_size(named.get(head_leaf(arch).torch_name), class_axis=0)
    table = leaves(arch, classes)
    report = _compare({leaf.torch_name: leaf.torch_shape for leaf in table}, named, repeated)
    if not report.ok:
        return {}, report
    return {leaf.path: leaf.from_torch(named[leaf.torch_name]) for leaf in table}, report


def to_torch(arch: str, flat: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], NameReport]:
    """The reverse of `from_torch`: the torch module's state dict from Flax arrays, and what does not fit."""
    classes = _head_size(flat.get(head_leaf(arch).path), class_axis=1)
    table = leaves(arch, classes)
    report = _compare({leaf.path: leaf.shape for leaf in table}, flat)
    if not report.ok:
        return {}, report
    return {leaf.torch_name: leaf.to_torch(flat[leaf.path]) for leaf in table}, report


def fitting_architecture(state: Mapping[str, np.ndarray]) -> str | None:
    """The architecture whose names and shapes a state dict has, or None: turns a refusal into a hint."""
    for arch in ARCHITECTURES:
        size = len(leaves(arch, None))
        named = sum(canonical_torch_name(name) is not None for name in state)
        if named - 2 <= size <= named and from_torch(arch, state)[1].ok:
            return arch
    return None


def _compare(
    expected: Mapping[str, tuple[int, ...]], found: Mapping[str, np.ndarray], repeated: Iterable[str] = ()
) -> NameReport:
    return NameReport(
        missing=tuple(name for name in expected if name not in found),
        unexpected=tuple(name for name in found if name not in expected),
        mismatched=tuple(
            ShapeMismatch(name, tuple(found[name].shape), shape)
            for name, shape in expected.items()
            if name in found and tuple(found[name].shape) != shape
        ),
        repeated=tuple(repeated),
    )


def _head_size(weight: np.ndarray | None, class_axis: int) -> int | None:
    """Classes of a head's weight, a matrix or a 1x1 convolution; None without one.

    Misshapen counts as 1000 and is then reported.
    """
    if weight is None:
        return None
    return int(weight.shape[class_axis]) if weight.ndim in (2, 4) else 1000

"""BatchNorm merged into the convolution before it: the same function for fixed statistics, at no cost a step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

Tree = Mapping[str, Any]

_PAIRS = {"bn1": "conv1", "bn2": "conv2", "bn3": "conv3", "downsample_bn": "downsample_conv"}


def fold_batch_norm(variables: Tree, *, epsilon: float = 1e-5) -> dict[str, Any]:
    """Variables of a ResNet with `norm="folded"` from those of one with `norm="batch"`.

    With s = scale / sqrt(var + epsilon), each output channel's kernel is multiplied by s and gets the bias
    `bias - mean * s`. Works at any depth, so a network that holds a ResNet, such as MAP, folds as well.

    Args:
        variables: `{"params", "batch_stats"}`; not modified.
        epsilon: that of the norms.

    Returns:
        `{"params"}`, and `"batch_stats"` with what belongs to norms that follow no convolution, if any.

    Raises:
        ValueError: a norm whose name is known, without its convolution.
    """
    params, rest = _fold(variables["params"], variables.get("batch_stats", {}), epsilon)
    return {"params": params, "batch_stats": rest} if rest else {"params": params}


def _fold(params: Tree, statistics: Tree, epsilon: float) -> tuple[dict[str, Any], dict[str, Any]]:
    folded: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    for name, value in params.items():
        if name in _PAIRS:
            continue
        inner = statistics.get(name, {})
        if isinstance(value, Mapping) and "kernel" not in value:
            folded[name], left = _fold(value, inner, epsilon)
            if left:
                rest[name] = left
        else:
            folded[name] = value
            if inner:
                rest[name] = inner
    for norm, convolution in _PAIRS.items():
        if norm in params:
            if convolution not in folded:
                raise ValueError(
                    f"{norm} follows no {convolution}: a norm behind something else cannot be folded"
                )
            folded[convolution] = _merge(params[convolution], params[norm], statistics[norm], epsilon)
    return folded, rest


def _merge(convolution: Tree, norm: Tree, statistics: Tree, epsilon: float) -> dict[str, jax.Array]:
    factor = norm["scale"] * jax.lax.rsqrt(statistics["var"] + jnp.float32(epsilon))  # (F,)
    return {
        "kernel": convolution["kernel"] * factor[None, None, None, :],
        "bias": norm["bias"] - statistics["mean"] * factor,
    }

"""What a network consists of, found by shape inference alone: no weights are made, nothing is computed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn


def count_parameters(params: Any) -> int:
    """Numbers in a tree of arrays or shapes; batch statistics are not parameters and live in another tree."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


@dataclass(frozen=True)
class ModelSummary:
    """Shapes per endpoint in order of computation, parameters per top-level module in order of creation."""

    endpoints: tuple[tuple[str, tuple[int, ...], str], ...]
    """(name, shape with the batch first, dtype)."""
    modules: tuple[tuple[str, int], ...]
    """(name, parameters)."""
    parameters: int


def summarise(model: nn.Module, image_size_px: int, batch_size: int = 1) -> ModelSummary:
    """Summary of a network at a square image size."""
    endpoint_order: list[str] = []  # transformations sort dicts by key, so the order is noted while tracing
    module_order: list[str] = []

    def build(key: jax.Array, images: jax.Array) -> tuple[dict[str, jax.Array], Any]:
        outputs, variables = model.init_with_output(key, images, train=False)
        endpoints = outputs if isinstance(outputs, dict) else {**outputs[1], "logits": outputs[0]}
        endpoint_order.extend(endpoints)
        module_order.extend(variables["params"])
        return endpoints, variables["params"]

    images = jax.ShapeDtypeStruct((batch_size, image_size_px, image_size_px, 3), jnp.float32)
    endpoints, params = jax.eval_shape(build, jax.eval_shape(lambda: jax.random.key(0)), images)
    return ModelSummary(
        endpoints=tuple((n, endpoints[n].shape, str(endpoints[n].dtype)) for n in endpoint_order),
        modules=tuple((n, count_parameters(params[n])) for n in module_order),
        parameters=count_parameters(params),
    )


def format_summary(summary: ModelSummary) -> str:
    """A printable table."""
    rows = [(name, " x ".join(map(str, shape)), dtype) for name, shape, dtype in summary.endpoints]
    rows = [("endpoint", "shape", "dtype"), *rows, ("", "", ""), ("module", "parameters", "")]
    rows += [(name, f"{count:,}", "") for name, count in summary.modules]
    rows.append(("total", f"{summary.parameters:,}", ""))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )

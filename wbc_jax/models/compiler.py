"""Options that XLA compiles networks with: `compiler_options()` for `jax.jit`, and `jit`, which passes them.

On a CPU XLA hands convolutions to YNNPACK, which is slow at weight gradients: by Eigen a convolution and its gradients
take about half as long (`python benchmarks/levers.py --levers dense`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax

from wbc_jax.models.lowerings import form_of

# YNNPACK keeps the matrix products.
_EIGEN_CONVOLUTIONS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}


def compiler_options() -> dict[str, str]:
    """For `jax.jit(function, compiler_options=...)` on the default backend; empty where XLA's defaults serve best.

    Two programs give a network's results equal to the bit only if both are compiled with the same options.
    """
    return dict(_EIGEN_CONVOLUTIONS) if form_of("dense") == "eigen" and _eigen_can_be_chosen() else {}


def jit(function: Callable[..., Any], **arguments: Any) -> Any:
    """`jax.jit` with `compiler_options()`: how the package compiles what runs a network (pmap takes no options)."""
    return jax.jit(function, compiler_options=compiler_options(), **arguments)


@functools.cache
def _eigen_can_be_chosen() -> bool:
    """Whether the installed XLA has the option: it is experimental, and another release may lack it."""
    try:
        jax.jit(lambda x: x + 1, compiler_options=_EIGEN_CONVOLUTIONS).lower(1.0).compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True

"""A wall against XLA:CPU's habit of computing a map anew within each operation that reads it."""

from __future__ import annotations

from typing import TypeVar

import jax

from wbc_jax.models.lowerings import form_of

Maps = TypeVar("Maps")


def stored(maps: Maps) -> Maps:
    """The same arrays, computed once and read from memory by all that uses them.

    XLA:CPU puts cheap operations into each of their readers. Where these have such readers in turn, as in the sum of
    gradients at a residual block, whole chains are computed many times. It does not look into a loop, not even one
    that passes its values on; and it drops an `optimization_barrier` before it decides.
    """
    if form_of("reuse") != "stored":
        return maps
    return jax.lax.fori_loop(0, 2, lambda _, maps: jax.lax.optimization_barrier(maps), maps)

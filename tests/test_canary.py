"""The known miscompile of jaxlib 0.10.2 on CPU (jax-ml/jax#39103): sums under jit that are silently wrong.

When this fails, every number that this installation computes is suspect: install another jaxlib.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import jaxlib
import pytest


@pytest.mark.usefixtures("optimised")
@pytest.mark.parametrize("count", [1025, 32_769, 50_001])
def test_fused_matrix_product_and_reduction_is_right(count: int) -> None:
    """Squared length of rotated points (i, 0, 0): an exact power of two in float32 for the chosen last rows."""
    points = jnp.arange(count, dtype=jnp.float32)[:, None] * jnp.eye(3, dtype=jnp.float32)[:1]
    turn = jnp.asarray([[0, 1, 0], [1, 0, 0], [0, 0, 1]], jnp.float32)
    lengths = jax.jit(jax.vmap(lambda point: jnp.square(turn @ point).sum()))(points)
    expected = float(count - 1) ** 2
    found = float(lengths[-1])
    assert found == pytest.approx(expected, rel=1e-6), (
        f"jaxlib {jaxlib.__version__} computes wrong sums on this machine; install another version"
    )

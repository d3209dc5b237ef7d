"""Forms for matrix units against the plain convolution: the same values, the same gradients."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wbc_jax.models.layers import convolve
from wbc_jax.models.lowerings import Form, forms


def normal(*shape: int, seed: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def values(form: dict[str, Form], x: jax.Array, kernel: jax.Array, **options: int) -> list[np.ndarray]:
    """Value, and gradients of a fixed random sum of it."""

    def both(x: jax.Array, kernel: jax.Array):
        value, pull = jax.vjp(lambda x, kernel: convolve(x, kernel, **options), x, kernel)
        return value, *pull(normal(*value.shape, seed=9))

    with forms(**form):
        return [np.asarray(array) for array in jax.jit(both)(x, kernel)]


@pytest.mark.parametrize("form", ["merged32", "merged64", "split"])
@pytest.mark.parametrize(
    ("channels", "features", "groups", "stride"),
    [(64, 64, 32, 1), (48, 48, 4, 2), (96, 96, 6, 1), (64, 16, 16, 1), (96, 96, 32, 2), (24, 8, 2, 1)],
)
def test_merged_groups(form: Form, channels: int, features: int, groups: int, stride: int) -> None:
    """96 channels in 6 groups of 16: only 2 of the 4 that would fit divide 6. In 32 of 3: 8 for `split`."""
    x, kernel = normal(2, 7, 6, channels, seed=1), normal(3, 3, channels // groups, features, seed=2)
    options = {"stride": stride, "padding": 1, "groups": groups}
    plain = values({"grouped": "native"}, x, kernel, **options)
    for ours, theirs in zip(values({"grouped": form}, x, kernel, **options), plain, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())


@pytest.mark.parametrize("form", ["padded", "space_to_depth"])
@pytest.mark.parametrize("size", [(16, 12), (9, 12)], ids=["even", "odd"])
def test_stems(form: Form, size: tuple[int, int]) -> None:
    """An odd side does not fold into blocks: there the plain form is taken."""
    x, kernel = normal(2, *size, 3, seed=1), normal(7, 7, 3, 8, seed=2)
    options = {"stride": 2, "padding": 3}
    plain = values({"dense": "native"}, x, kernel, **options)
    ours = values({"stem": form, "dense": "native"}, x, kernel, **options)
    for our, their in zip(ours, plain, strict=True):
        np.testing.assert_allclose(our, their, atol=1e-5 * np.abs(their).max())


def test_forms_leave_their_trace_in_the_program() -> None:
    """Not only equal: really another convolution."""
    x, kernel = normal(1, 8, 8, 3, seed=1), normal(7, 7, 3, 4, seed=2)

    def program(**form: Form) -> str:
        with forms(**form):
            return str(jax.make_jaxpr(lambda x, k: convolve(x, k, stride=2, padding=3))(x, kernel))

    assert "4,4,12,4" in program(stem="space_to_depth")
    assert "7,7,4,4" in program(stem="padded")
    assert "7,7,4,4" not in program(stem="native")


@pytest.mark.parametrize(
    ("size", "kernel_size", "stride"),
    [((6, 6), 9, 1), ((7, 5), 9, 1), ((6, 6), 7, 1), ((12, 11), 9, 2), ((11, 12), 7, 2), ((3, 3), 5, 3)],
    ids=str,
)
def test_kernels_larger_than_their_map(size: tuple[int, int], kernel_size: int, stride: int) -> None:
    x, kernel = normal(2, *size, 32, seed=1), normal(kernel_size, kernel_size, 8, 16, seed=2)
    options = {"stride": stride, "padding": kernel_size // 2, "groups": 4}
    plain = values({"grouped": "native"}, x, kernel, **options)
    with_barrier = values({"grouped": "split", "large_kernel": "padded"}, x, kernel, **options)
    for ours, theirs in zip(with_barrier, plain, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())

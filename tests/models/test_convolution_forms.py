"""Forms for matrix units against the plain convolution: the same values, the same gradients."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from windows import WINDOWS

from wbc_jax.models.kernel_rows import is_narrow
from wbc_jax.models.layers import Padding, convolve
from wbc_jax.models.lowerings import Form, forms


def normal(*shape: int, seed: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def values(form: dict[str, Form], x: jax.Array, kernel: jax.Array, **options: Any) -> list[np.ndarray]:
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


def assert_same_as_xlas(form: dict[str, Form], x: jax.Array, kernel: jax.Array, **options: Any) -> None:
    kinds = ("grouped", "dense", "large_kernel", "narrow", "strided")
    plain: dict[str, Form] = dict.fromkeys(kinds, "native")
    theirs = values(plain, x, kernel, **options)
    for our, their in zip(values({**plain, **form}, x, kernel, **options), theirs, strict=True):
        np.testing.assert_allclose(our, their, atol=1e-5 * np.abs(their).max())


@pytest.mark.parametrize(
    ("size", "kernel_size"), [((6, 6), 9), ((7, 5), 9), ((6, 6), 7), ((3, 3), 5), ((2, 2), 3)], ids=str
)
def test_kernels_larger_than_their_map(size: tuple[int, int], kernel_size: int) -> None:
    x, kernel = normal(2, *size, 32, seed=1), normal(kernel_size, kernel_size, 8, 16, seed=2)
    form: dict[str, Form] = {"grouped": "split", "large_kernel": "padded"}
    assert_same_as_xlas(form, x, kernel, padding=kernel_size // 2, groups=4)


@pytest.mark.parametrize(("size", "window", "stride", "padding"), WINDOWS)
@pytest.mark.parametrize(("channels", "features", "groups"), [(12, 5, 1), (16, 4, 4), (6, 1, 1)], ids=str)
def test_all_rows_of_a_narrow_kernel_at_once(
    size: tuple[int, int],
    window: tuple[int, int],
    stride: int,
    padding: Padding,
    channels: int,
    features: int,
    groups: int,
) -> None:
    x, kernel = normal(2, *size, channels, seed=1), normal(*window, channels // groups, features, seed=2)
    form: dict[str, Form] = {"narrow": "rows", "grouped": "split"}
    assert is_narrow(kernel, groups)
    assert_same_as_xlas(form, x, kernel, stride=stride, padding=padding, groups=groups)


@pytest.mark.parametrize(("size", "window", "stride", "padding"), WINDOWS)
def test_gradient_by_parity_of_the_pixels(
    size: tuple[int, int], window: tuple[int, int], stride: int, padding: Padding
) -> None:
    x, kernel = normal(2, *size, 3, seed=1), normal(*window, 3, 4, seed=2)
    assert_same_as_xlas({"strided": "parity"}, x, kernel, stride=stride, padding=padding)


def test_only_kernels_to_few_channels_are_narrow() -> None:
    def narrow(*shape: int, groups: int = 1) -> bool:
        return is_narrow(jnp.zeros(shape), groups)

    assert narrow(3, 3, 128, 32)  # DenseNet
    assert narrow(9, 9, 4, 16, groups=16)  # EPSA
    assert narrow(7, 7, 2, 1)  # a spatial gate
    assert not narrow(3, 3, 64, 64)
    assert not narrow(3, 3, 256, 64)
    assert not narrow(3, 3, 4, 128, groups=32)
    assert not narrow(3, 3, 1, 8, groups=8)
    assert not narrow(1, 1, 128, 16)


def test_bfloat16_stays_what_it_is() -> None:
    x, kernel = (normal(*shape, seed=1).astype(jnp.bfloat16) for shape in ((1, 8, 8, 8), (5, 5, 8, 2)))
    for narrow in ("rows", "native"):
        with forms(narrow=narrow, strided="parity"):
            y, pull = jax.vjp(lambda x, kernel: convolve(x, kernel, stride=2, padding=2), x, kernel)
            assert {value.dtype for value in (y, *pull(y))} == {jnp.dtype(jnp.bfloat16)}


def test_the_gradient_by_parity_multiplies_no_zeros() -> None:
    x, kernel = normal(1, 8, 8, 4, seed=1), normal(3, 3, 4, 4, seed=2)

    def programs(**form: Form) -> str:
        with forms(**form):
            return str(
                jax.make_jaxpr(
                    lambda x: jax.vjp(lambda x: convolve(x, kernel, stride=2, padding=1), x)[1](
                        jnp.ones((1, 4, 4, 4))
                    )
                )(x)
            )

    assert "lhs_dilation=(2, 2)" in programs(strided="native")
    assert "lhs_dilation=(2, 2)" not in programs(strided="parity")

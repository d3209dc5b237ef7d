"""Winograd's convolution against torch's in float64: values, gradients, and how much float32 loses."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from wbc_jax.models.layers import convolve
from wbc_jax.models.lowerings import Form, forms
from wbc_jax.models.native import native_convolution
from wbc_jax.models.winograd import suits, winograd_convolution


def normal(*shape: int, seed: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def example(*sizes: int, features: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """A map of these sizes (B, H, W, C), a kernel, a cotangent."""
    kernel = normal(3, 3, sizes[-1], features, seed=2) / np.sqrt(9 * sizes[-1])
    return normal(*sizes, seed=1), kernel, normal(*sizes[:-1], features, seed=3)


def both(convolution: Any, x: jax.Array, kernel: jax.Array, cotangent: jax.Array) -> tuple[jax.Array, ...]:
    value, pull = jax.vjp(convolution, x, kernel)
    return value, *pull(cotangent)


def by_torch(x: jax.Array, kernel: jax.Array, cotangent: jax.Array) -> list[np.ndarray]:
    """The same three in float64, channels last."""
    first = torch.tensor(np.asarray(x, np.float64).transpose(0, 3, 1, 2), requires_grad=True)
    weight = torch.tensor(np.asarray(kernel, np.float64).transpose(3, 2, 0, 1), requires_grad=True)
    y = torch.nn.functional.conv2d(first, weight, padding=1)
    y.backward(torch.tensor(np.asarray(cotangent, np.float64).transpose(0, 3, 1, 2)))
    assert first.grad is not None
    assert weight.grad is not None
    gradients = first.grad.numpy().transpose(0, 2, 3, 1), weight.grad.numpy().transpose(2, 3, 1, 0)
    return [y.detach().numpy().transpose(0, 2, 3, 1), *gradients]


# On one device the batches are taken apart into 3 blocks of 2 images, 1 of 6, 4 of 1 and 1 of 3.
@pytest.mark.parametrize("devices", [1, 4])
@pytest.mark.parametrize(
    ("sizes", "features"),
    [((6, 28, 28, 160), 128), ((6, 13, 15, 128), 144), ((4, 32, 30, 130), 160), ((3, 5, 1, 2), 3)],
    ids=str,
)
def test_value_and_gradients_are_no_farther_from_the_exact_ones_than_xlas(
    sizes: tuple[int, ...], features: int, devices: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jax, "device_count", lambda: devices)
    args = example(*sizes, features=features)
    exact = by_torch(*args)
    ours = jax.jit(lambda *args: both(winograd_convolution, *args))(*args)
    xlas = jax.jit(lambda *args: both(lambda x, k: native_convolution(x, k, 1, (1, 1)), *args))(*args)
    for our, xla, true in zip(ours, xlas, exact, strict=True):
        assert our.shape == true.shape
        scale = np.abs(true).max()
        error, xlas_error = (float(np.abs(np.asarray(y) - true).max() / scale) for y in (our, xla))
        assert error < max(2 * xlas_error, 1e-6), (error, xlas_error)


def test_what_is_left_to_other_forms() -> None:
    x, kernel = jnp.zeros((8, 14, 14, 256)), jnp.zeros((3, 3, 256, 256))
    assert suits(x, kernel, 1, (1, 1), 1)
    assert not suits(x, kernel, 2, (1, 1), 1)
    assert not suits(x, kernel, 1, (0, 0), 1)
    assert not suits(x, jnp.zeros((3, 3, 128, 256)), 1, (1, 1), 2)
    assert not suits(x, jnp.zeros((1, 1, 256, 256)), 1, (0, 0), 1)
    assert not suits(x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16), 1, (1, 1), 1)
    assert not suits(x, jnp.zeros((3, 3, 256, 64)), 1, (1, 1), 1)  # narrow
    assert not suits(jnp.zeros((8, 7, 7, 512)), jnp.zeros((3, 3, 512, 512)), 1, (1, 1), 1)  # few tiles
    batch = jax.export.symbolic_shape("b, 14, 14, 256")
    assert not suits(jax.ShapeDtypeStruct(batch, jnp.float32), kernel, 1, (1, 1), 1)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0)], ids=str)
def test_under_vmap(axes: tuple[int | None, int | None]) -> None:
    maps, kernels = normal(2, 2, 6, 5, 8, seed=1), normal(2, 3, 3, 8, 4, seed=2)
    args = (maps if axes[0] == 0 else maps[0], kernels if axes[1] == 0 else kernels[0])

    def loss(convolution: Any, x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jnp.sum(jnp.sin(convolution(x, kernel)))

    def gradients(convolution: Any) -> Any:
        return jax.vmap(jax.grad(lambda *args: loss(convolution, *args), (0, 1)), axes)(*args)

    plain = gradients(lambda x, kernel: native_convolution(x, kernel, 1, (1, 1)))
    for our, their in zip(gradients(winograd_convolution), plain, strict=True):
        np.testing.assert_allclose(our, their, atol=2e-5 * np.abs(their).max())


def test_a_batch_on_several_devices_stays_there() -> None:
    devices = jax.devices()
    assert len(devices) == 4
    args = example(4, 8, 8, 8, features=8)
    mesh = Mesh(np.asarray(devices), ("batch",))
    spread, whole = NamedSharding(mesh, PartitionSpec("batch")), NamedSharding(mesh, PartitionSpec())
    step = jax.jit(
        lambda *args: both(winograd_convolution, *args),
        in_shardings=(spread, whole, spread),
        out_shardings=(spread, spread, whole),
    ).lower(*args)
    program = step.compile()
    text = program.as_text()
    assert "all-reduce" in text  # of the kernel's gradient
    assert "all-gather" not in text
    assert "all-to-all" not in text
    placed = [jax.device_put(a, s) for a, s in zip(args, (spread, whole, spread), strict=True)]
    for our, true in zip(program(*placed), by_torch(*args), strict=True):
        np.testing.assert_allclose(our, true, atol=1e-5 * np.abs(true).max())


def test_the_table_chooses_it() -> None:
    x, kernel, _ = example(2, 16, 16, 128, features=128)

    def program(form: Form) -> str:
        with forms(three_by_three=form):
            return str(jax.make_jaxpr(lambda x, k: convolve(x, k, padding=1))(x, kernel))

    assert "winograd_convolution" in program("winograd")
    assert "winograd_convolution" not in program("native")

"""Convolution, normalisation and pooling against torch, and the traps of each."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from wbc_jax.errors import UsageError
from wbc_jax.models import layers


def normal(*shape: int, seed: int = 0, mean: float = 0.0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=shape) + mean).astype(np.float32)


def nchw(x: np.ndarray) -> torch.Tensor:
    return torch.tensor(x).permute(0, 3, 1, 2)


def nhwc(x: torch.Tensor) -> np.ndarray:
    return x.detach().permute(0, 2, 3, 1).numpy()


CONVOLUTIONS = [
    # kernel, channels, features, stride, padding, groups
    pytest.param(1, 12, 20, 1, 0, 1, id="pointwise"),
    pytest.param(1, 12, 20, 2, 0, 1, id="pointwise-stride-2"),
    pytest.param(3, 6, 10, 2, 1, 1, id="dense-stride-2"),
    pytest.param(7, 3, 8, 2, 3, 1, id="stem"),
    pytest.param(3, 16, 24, 1, 1, 4, id="grouped"),
    pytest.param(5, 16, 16, 2, 2, 8, id="grouped-stride-2"),
    pytest.param(1, 16, 8, 2, 0, 4, id="grouped-pointwise"),
    pytest.param(3, 12, 12, 1, 1, 12, id="depthwise"),
    pytest.param(3, 12, 12, 2, 1, 12, id="depthwise-stride-2"),
    pytest.param(5, 6, 6, 2, 0, 6, id="depthwise-unpadded"),
    pytest.param(3, 6, 12, 1, 1, 6, id="depthwise-twice-the-channels"),
    pytest.param(1, 4, 6, 2, 1, 1, id="pointwise-padded"),
]


@pytest.mark.parametrize(("kernel", "channels", "features", "stride", "padding", "groups"), CONVOLUTIONS)
@pytest.mark.parametrize("size", [(9, 12), (8, 7)], ids=str)
@pytest.mark.parametrize("backend", ["cpu", "elsewhere"])
def test_convolution_in_every_lowering_equals_torch(
    kernel: int, channels: int, features: int, stride: int, padding: int, groups: int,
    size: tuple[int, int], backend: str, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Forward and both gradients, in the form chosen for a CPU and in the one chosen elsewhere."""
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    x, w = normal(2, *size, channels), normal(kernel, kernel, channels // groups, features, seed=1)
    options = {"stride": stride, "padding": padding, "groups": groups}
    y, pull = jax.vjp(lambda x, w: layers.convolve(x, w, **options), x, w)
    tx, tw = nchw(x).requires_grad_(), torch.tensor(w).permute(3, 2, 0, 1).requires_grad_()
    expected = F.conv2d(tx, tw, **options)
    np.testing.assert_allclose(y, nhwc(expected), atol=2e-5)
    weights = normal(*y.shape, seed=2)
    (expected * nchw(weights)).sum().backward()
    assert tx.grad is not None
    assert tw.grad is not None
    dx, dw = pull(weights)
    np.testing.assert_allclose(dx, nhwc(tx.grad), atol=5e-5)
    np.testing.assert_allclose(dw, tw.grad.permute(2, 3, 1, 0).numpy(), atol=1e-4)


def test_the_table_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    def primitives(x: jax.Array, w: jax.Array, groups: int) -> list[str]:
        jaxpr = jax.make_jaxpr(lambda x, w: layers.convolve(x, w, groups=groups))(x, w)
        return re.findall(r"= (dot_general|conv_general_dilated)\[", str(jaxpr))

    x, pointwise, grouped = jnp.ones((1, 4, 4, 8)), jnp.ones((1, 1, 8, 8)), jnp.ones((3, 3, 2, 8))
    middle, many = jnp.ones((1, 4, 4, 64)), jnp.ones((1, 4, 4, 128))
    assert primitives(x, pointwise, 1) == ["dot_general"]
    assert primitives(x, grouped, 4) == ["conv_general_dilated"]  # all narrow groups merged
    assert primitives(middle, jnp.ones((3, 3, 4, 64)), 16) == ["conv_general_dilated"] * 4
    assert primitives(middle, jnp.ones((3, 3, 32, 64)), 2) == ["conv_general_dilated"] * 2
    assert primitives(many, jnp.ones((3, 3, 1, 128)), 128) == []  # shifted products
    assert primitives(many, jnp.ones((3, 3, 1, 256)), 128) == ["conv_general_dilated"] * 8
    monkeypatch.setattr(jax, "default_backend", lambda: "elsewhere")
    assert primitives(x, pointwise, 1) == ["conv_general_dilated"]
    assert primitives(x, grouped, 4) == ["conv_general_dilated"]
    assert primitives(many, jnp.ones((3, 3, 1, 128)), 128) == ["conv_general_dilated"]


@pytest.mark.parametrize(("size", "stride"), [((40, 33), 1), ((65, 47), 2)], ids=str)
def test_depthwise_kernel_gradient_of_large_maps(size: tuple[int, int], stride: int) -> None:
    """Sums of thousands of positions, in rounds, with a rest in some: none is left out, none counted twice."""
    x, w = normal(3, *size, 5), normal(3, 3, 1, 5, seed=1)
    options = {"stride": stride, "padding": 1, "groups": 5}
    y, pull = jax.vjp(lambda w: layers.convolve(x, w, **options), w)
    weights = normal(*y.shape, seed=2)
    tw = torch.tensor(w).permute(3, 2, 0, 1).double().requires_grad_()
    (F.conv2d(nchw(x).double(), tw, **options) * nchw(weights).double()).sum().backward()
    assert tw.grad is not None
    np.testing.assert_allclose(pull(weights)[0], tw.grad.permute(2, 3, 1, 0).numpy(), atol=2e-4)


def test_even_input_is_padded_as_torch_does_not_as_same() -> None:
    x, w = normal(1, 8, 8, 2), normal(3, 3, 2, 3, seed=1)
    same = jax.lax.conv_general_dilated(x, w, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    ours = layers.convolve(jnp.asarray(x), jnp.asarray(w), stride=2, padding=1)
    assert same.shape == ours.shape
    assert np.abs(same - ours).max() > 0.1


@pytest.mark.parametrize("size", [8, 9], ids=str)
def test_max_pool_of_negative_values(size: int) -> None:
    x = -np.abs(normal(2, size, size, 3)) - 1.0
    expected = F.max_pool2d(nchw(x), 3, 2, 1)
    pooled, pull = jax.vjp(layers.max_pool, jnp.asarray(x))
    np.testing.assert_array_equal(pooled, nhwc(expected))
    assert pooled.max() <= -1.0
    tx = nchw(x).requires_grad_()
    F.max_pool2d(tx, 3, 2, 1).square().sum().backward()
    assert tx.grad is not None
    np.testing.assert_allclose(pull(2 * pooled)[0], nhwc(tx.grad), rtol=1e-6)


@pytest.mark.parametrize("size", [(8, 6), (7, 9)], ids=str)
def test_avg_pool(size: tuple[int, int]) -> None:
    x = normal(2, *size, 3)
    np.testing.assert_allclose(layers.avg_pool(jnp.asarray(x)), nhwc(F.avg_pool2d(nchw(x), 2)), atol=1e-6)
    assert layers.avg_pool(jnp.asarray(x, jnp.bfloat16)).dtype == jnp.bfloat16


def test_batch_norm_trains_as_torch_does_but_for_the_unbiased_variance() -> None:
    x, weights = normal(3, 5, 4, 6, mean=0.7), normal(3, 5, 4, 6, seed=3)
    scale, bias = normal(6, seed=4), normal(6, seed=5)
    mean, var = normal(6, seed=6), np.abs(normal(6, seed=7)) + 0.5
    reference = torch.nn.BatchNorm2d(6)
    reference.load_state_dict(
        {"weight": torch.tensor(scale), "bias": torch.tensor(bias), "running_mean": torch.tensor(mean),
         "running_var": torch.tensor(var), "num_batches_tracked": torch.tensor(0)}
    )  # fmt: skip
    model = layers.BatchNorm()
    statistics = {"mean": jnp.asarray(mean), "var": jnp.asarray(var)}

    def ours(params: Any, x: Any) -> tuple[jax.Array, Any]:
        y, updated = model.apply(
            {"params": params, "batch_stats": statistics},
            x,
            use_running_average=False,
            mutable=["batch_stats"],
        )
        return y, updated["batch_stats"]

    y, pull, updated = jax.vjp(ours, {"scale": scale, "bias": bias}, x, has_aux=True)
    tx = nchw(x).requires_grad_()
    expected = reference(tx)
    (expected * nchw(weights)).sum().backward()
    assert tx.grad is not None
    d_params, dx = pull(jnp.asarray(weights))
    np.testing.assert_allclose(y, nhwc(expected), atol=1e-5)
    np.testing.assert_allclose(dx, nhwc(tx.grad), atol=1e-5)
    np.testing.assert_allclose(d_params["scale"], reference.weight.grad, atol=1e-4)
    np.testing.assert_allclose(d_params["bias"], reference.bias.grad, atol=1e-4)
    assert reference.running_mean is not None
    assert reference.running_var is not None
    np.testing.assert_allclose(updated["mean"], reference.running_mean.numpy(), atol=1e-6)
    count = 3 * 5 * 4
    new = (reference.running_var.numpy() - 0.9 * var) * (count - 1) / count
    np.testing.assert_allclose(updated["var"], 0.9 * var + new, rtol=1e-5)
    evaluated = model.apply(
        {"params": {"scale": scale, "bias": bias}, "batch_stats": statistics}, x, use_running_average=True
    )
    reference.load_state_dict(
        {"weight": torch.tensor(scale), "bias": torch.tensor(bias), "running_mean": torch.tensor(mean),
         "running_var": torch.tensor(var), "num_batches_tracked": torch.tensor(0)}
    )  # fmt: skip
    np.testing.assert_allclose(evaluated, nhwc(reference.eval()(nchw(x))), atol=1e-5)


def test_moments_of_bfloat16_are_reduced_in_float32() -> None:
    """Reduced in bfloat16 the variance of a batch with mean / deviation = 10 is wrong by tens of percent."""
    x = jnp.asarray(normal(8, 16, 16, 4, mean=10.0), jnp.bfloat16)
    exact = np.asarray(x, np.float64)
    moments = layers.batch_moments(x)
    assert moments.mean.dtype == moments.var.dtype == jnp.float32
    np.testing.assert_allclose(moments.mean, exact.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(moments.var, exact.var((0, 1, 2)), rtol=1e-2)


def test_running_mean_keeps_the_variance_exact_at_a_large_mean() -> None:
    """Mean / deviation = 1000: without the shift the variance has no correct digit."""
    x = normal(8, 16, 16, 4, mean=1000.0)
    exact = np.asarray(x, np.float64).var((0, 1, 2))
    shift = jnp.full(4, 999.0)
    np.testing.assert_allclose(layers.batch_moments(jnp.asarray(x), shift=shift).var, exact, rtol=1e-4)
    model = layers.BatchNorm()
    statistics = {"mean": shift, "var": jnp.ones(4)}
    params = {"scale": jnp.ones(4), "bias": jnp.zeros(4)}
    y, _ = model.apply(
        {"params": params, "batch_stats": statistics}, x, use_running_average=False, mutable=["batch_stats"]
    )
    np.testing.assert_allclose(np.std(y, axis=(0, 1, 2)), 1.0, rtol=1e-3)


def test_shift_changes_neither_moments_nor_gradient() -> None:
    x, shift = jnp.asarray(normal(2, 4, 4, 3)), jnp.asarray([0.3, -0.2, 0.1])

    def score(x: jax.Array, shift: jax.Array | None) -> jax.Array:
        moments = layers.batch_moments(x, shift=shift)
        return (moments.mean * jnp.asarray([1.0, 2.0, 3.0]) + moments.var).sum()

    plain, shifted = (jax.value_and_grad(score)(x, s) for s in (None, shift))
    np.testing.assert_allclose(plain[0], shifted[0], rtol=1e-5)
    np.testing.assert_allclose(plain[1], shifted[1], atol=1e-6)


def test_statistics_over_a_pmap_axis_are_those_of_the_whole_batch() -> None:
    x = jnp.asarray(normal(4, 2, 3, 3, 5, mean=0.5))
    model = layers.BatchNorm(axis_name="batch")
    variables = model.init(jax.random.key(0), x[0], use_running_average=False)

    def apply(x: jax.Array) -> Any:
        return model.apply(variables, x, use_running_average=False, mutable=["batch_stats"])

    y, updated = jax.vmap(apply, axis_name="batch")(x)
    whole, expected = layers.BatchNorm().apply(
        variables, x.reshape(8, 3, 3, 5), use_running_average=False, mutable=["batch_stats"]
    )
    np.testing.assert_allclose(y.reshape(whole.shape), whole, atol=1e-5)
    for name in ("mean", "var"):
        for row in updated["batch_stats"][name]:
            np.testing.assert_allclose(row, expected["batch_stats"][name], rtol=1e-5)


@pytest.mark.parametrize(
    "images",
    [
        jnp.zeros((2, 8, 8, 3), jnp.uint8),
        jnp.zeros((2, 3, 8, 8)),
        jnp.zeros((8, 8, 3)),
        jnp.zeros((2, 8, 8, 1)),
    ],
    ids=["uint8", "channels first", "no batch", "grey"],
)
def test_images_of_another_kind_are_refused(images: jax.Array) -> None:
    with pytest.raises(UsageError, match=r"float \(B, H, W, 3\)"):
        layers.check_images(images)

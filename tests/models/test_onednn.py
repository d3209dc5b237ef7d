"""oneDNN's convolutions against XLA's: the same values, the same gradients; and where they are left alone."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export as jax_export
from windows import WINDOWS

from wbc_jax.models import create_model, onednn
from wbc_jax.models.layers import Padding, convolve
from wbc_jax.models.lowerings import forms

pytestmark = pytest.mark.skipif(
    onednn.jaxlib.version.__version__ not in onednn.JAXLIB_RELEASES or sys.platform != "linux",
    reason="oneDNN is not called in this release",
)


@pytest.fixture(autouse=True)
def one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests have four virtual devices, for which oneDNN is not called."""
    monkeypatch.setattr(jax, "device_count", lambda: 1)


def normal(*shape: int, seed: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def both(x: jax.Array, kernel: jax.Array, **options: Any) -> Any:
    """Value, and gradients of a fixed random sum of it."""
    y, pull = jax.vjp(partial(convolve, **options), x, kernel)
    return y, *pull(normal(*y.shape, seed=9))


def calls(function: Any, *args: Any) -> int:
    """How many times oneDNN is called."""
    return str(jax.make_jaxpr(function)(*args)).count("target_name=__onednn$")


MORE_WINDOWS = [
    pytest.param((9, 8), (3, 3), 1, 3, id="gradient cut at its edges"),
    pytest.param((9, 8), (1, 1), 1, 0, id="1x1"),
    pytest.param((9, 8), (1, 1), 2, 0, id="1x1, stride 2"),
    pytest.param((9, 8), (1, 1), 1, 1, id="1x1, padded"),
]


@pytest.mark.parametrize(("size", "window", "stride", "padding"), [*WINDOWS, *MORE_WINDOWS])
@pytest.mark.parametrize(
    ("channels", "features", "groups"),
    [(3, 8, 1), (16, 24, 4), (12, 12, 12), (16, 16, 1), (16, 4, 4)],
    ids=["image", "grouped", "depthwise", "dense", "narrow"],
)
def test_values_and_gradients_are_those_of_xla(
    size: tuple[int, int],
    window: tuple[int, int],
    stride: int,
    padding: Padding,
    channels: int,
    features: int,
    groups: int,
) -> None:
    x, kernel = normal(2, *size, channels, seed=1), normal(*window, channels // groups, features, seed=2)
    options: dict[str, Any] = {"stride": stride, "padding": padding, "groups": groups}
    ours = both(x, kernel, **options)
    with forms(library="native"):
        theirs = both(x, kernel, **options)
    for our, their in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(our, their, atol=1e-5 * np.abs(their).max())


def test_what_is_called() -> None:
    """Value and map gradient; of a 1x1 also the kernel's, unless it widens few pixels; not the value of a narrow one,
    which rows compute sooner."""
    x = normal(1, 8, 8, 16, seed=1)
    assert calls(both, x, normal(1, 1, 16, 8, seed=2)) == 3
    assert calls(both, x, normal(1, 1, 16, 32, seed=2)) == 0
    assert calls(both, normal(1, 32, 32, 16, seed=1), normal(1, 1, 16, 32, seed=2)) == 3
    assert calls(partial(both, padding=1), x, normal(3, 3, 16, 16, seed=2)) == 2
    assert calls(partial(both, padding=1), x, normal(3, 3, 16, 4, seed=2)) == 1
    with forms(library="native"):
        assert calls(lambda x, kernel: both(x, kernel), x, normal(1, 1, 16, 8, seed=2)) == 0


def test_what_is_left_to_xla(monkeypatch: pytest.MonkeyPatch) -> None:
    x, kernel = normal(2, 8, 8, 4, seed=1), normal(3, 3, 4, 4, seed=2)
    assert onednn.serves(x, kernel)
    assert not onednn.serves(x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16))
    assert not onednn.serves(x[:0], kernel)
    for owner, name, value in (
        (jax, "device_count", lambda: 2),
        (onednn.jaxlib.version, "__version__", "0.10.2"),
        (onednn.platform, "machine", lambda: "aarch64"),
        (onednn.platform, "system", lambda: "Darwin"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, value)
            assert not onednn.serves(x, kernel), name
    jax.config.update("jax_compilation_cache_dir", "/x")
    try:
        assert not onednn.serves(x, kernel)
    finally:
        jax.config.update("jax_compilation_cache_dir", None)


def test_a_program_for_any_batch_size_holds_no_call() -> None:
    """It is to run elsewhere, and its sizes are not known."""
    images = jax.ShapeDtypeStruct(jax_export.symbolic_shape("b, 8, 8, 4"), jnp.float32)
    exported = jax_export.export(jax.jit(lambda x: convolve(x, jnp.ones((3, 3, 4, 4)))))(images)
    assert "__onednn$" not in exported.mlir_module()


def test_many_maps_of_one_kernel_are_one_call() -> None:
    maps, kernel, kernels = (
        normal(3, 2, 6, 6, 4, seed=1),
        normal(1, 1, 4, 4, seed=2),
        normal(3, 1, 1, 4, 4, seed=3),
    )
    for axes, args in (
        ((0, None), (maps, kernel)),
        ((None, 0), (maps[0], kernels)),
        ((0, 0), (maps, kernels)),
    ):
        ours = jax.vmap(both, axes)(*args)
        with forms(library="native"):
            theirs = jax.vmap(lambda x, kernel: both(x, kernel), axes)(*args)
        for our, their in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(our, their, atol=1e-5 * np.abs(their).max())
    assert "scan" not in str(jax.make_jaxpr(jax.vmap(convolve, (0, None)))(maps, kernel))


@pytest.mark.parametrize(
    "name", ["resnet_bottleneck_tiny", "se_resnext_tiny", "epsanet_tiny", "densenet_tiny"]
)
def test_networks_train_alike(name: str) -> None:
    model: Any = create_model(name, num_classes=5)
    images = normal(2, 32, 32, 3, seed=1)
    variables = jax.jit(partial(model.init, train=False))(jax.random.key(0), images)

    def loss(params: Any) -> jax.Array:
        (logits, _), _ = model.apply(
            {**variables, "params": params}, images, train=True, mutable=["batch_stats"]
        )
        return jnp.sum(jnp.sin(logits))

    def step() -> Any:
        return jax.jit(jax.value_and_grad(lambda params: loss(params)))

    assert calls(jax.grad(loss), variables["params"]) > 10
    ours = step()(variables["params"])
    with forms(library="native"):
        theirs = step()(variables["params"])
    # Rounding alone, through batch statistics of few pixels, makes some ten-thousandths of a gradient.
    scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(theirs))
    for our, their in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(our, their, atol=1e-3 * scale)


def test_a_process_with_one_device_calls_it_by_itself() -> None:
    program = """
import jax, jax.numpy as jnp
from wbc_jax.models.layers import convolve
x, kernel = jnp.ones((2, 9, 9, 3)), jnp.ones((3, 3, 3, 8))
lowered = jax.jit(lambda x, kernel: convolve(x, kernel, padding=1)).lower(x, kernel)
assert "__onednn$convolution" in lowered.as_text()
print(lowered.compile()(x, kernel)[0, :2, :2, 0].tolist())
"""
    environment = {**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[[12.0, 18.0], [18.0, 27.0]]\n"

"""Each measured form against the plain one: the same values, the same gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export as jax_export

from wbc_jax.models import compiler, lowerings
from wbc_jax.models.attention import scale_channels
from wbc_jax.models.batch_norm import batch_moments, normalise
from wbc_jax.models.channel_sums import channel_sums
from wbc_jax.models.compiler import compiler_options
from wbc_jax.models.densenet import DenseNet
from wbc_jax.models.endpoints import Endpoints
from wbc_jax.models.layers import convolve, projected_average
from wbc_jax.models.lowerings import Form, forms
from wbc_jax.models.pooling import global_average_pool, max_pool
from wbc_jax.models.residual import add_relu
from wbc_jax.models.stored import stored

NATIVE: dict[str, Form] = {
    "pointwise": "native",
    "dense": "native",
    "channel_sums": "native",
    "max_pool": "native",
    "narrow": "native",
    "strided": "native",
    "reuse": "native",
    "transition": "native",
    "growth": "native",
    "norm_gradient": "native",
}

SUMS_AND_GRADIENTS: tuple[dict[str, Form], ...] = (
    {"channel_sums": "blocked", "norm_gradient": "recomputed"},
    {"channel_sums": "native", "norm_gradient": "recomputed"},
    {"channel_sums": "blocked", "norm_gradient": "native"},
)


def normal(*shape: int, seed: int = 0, mean: float = 0.0) -> jax.Array:
    return jnp.asarray((np.random.default_rng(seed).normal(size=shape) + mean).astype(np.float32))


def assert_same_in(
    chosen: dict[str, Form], function: Callable[..., Any], *args: jax.Array, atol: float = 1e-5
) -> None:
    """Value and pull-back of a random cotangent, in the chosen forms and in the native ones."""

    def both(*args: jax.Array) -> Any:
        value, pull = jax.vjp(function, *args)
        cotangent = normal(*value.shape, seed=9)
        return value, pull(cotangent)

    results = []
    for table in (chosen, {**chosen, **NATIVE}):
        with forms(**table):
            results.append(compiler.jit(lambda *args: both(*args))(*args))  # a new function: nothing cached
    for ours, plain in zip(*map(jax.tree.leaves, results), strict=True):
        scale = max(1.0, float(jnp.max(jnp.abs(plain))))
        np.testing.assert_allclose(ours / scale, plain / scale, atol=atol)


# 196 pixels go in 14 runs of 14, seven at a time; 121 and 221 in runs of 11 and 13, a prime number of them; 31 and 9
# are not cut.
@pytest.mark.parametrize("size", [(14, 14), (11, 11), (13, 17), (31, 1), (3, 3)], ids=str)
def test_channel_sums_in_runs_equal_sums_in_float64(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wbc_jax.models.channel_sums._WORTH_A_LOOP", 0)
    x, g = normal(3, *size, 5, mean=2.0), normal(3, *size, 5, seed=1)
    with forms(channel_sums="blocked"):
        total, product = channel_sums(lambda x, g: (x, x * g), x, g)
    exact_x, exact_g = (np.asarray(v, np.float64) for v in (x, g))
    np.testing.assert_allclose(total, exact_x.sum((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(product, (exact_x * exact_g).sum((0, 1, 2)), atol=1e-3)


@pytest.mark.parametrize("chosen", SUMS_AND_GRADIENTS, ids=str)
@pytest.mark.parametrize("relu", [False, True], ids=["linear", "relu"])
@pytest.mark.parametrize("with_residual", [False, True], ids=["alone", "residual"])
def test_fused_batch_norm_equals_the_plain_one(
    relu: bool, with_residual: bool, chosen: dict[str, Form], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wbc_jax.models.channel_sums._WORTH_A_LOOP", 0)
    x, residual = normal(3, 6, 7, 8, mean=0.4), normal(3, 6, 7, 8, seed=1)
    scale, bias, shift = normal(8, seed=2), normal(8, seed=3), normal(8, seed=4)

    def norm(x: jax.Array, residual: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
        moments = batch_moments(x, shift=shift)
        factor = scale * jax.lax.rsqrt(moments.var + 1e-5)
        added = residual if with_residual else None
        return normalise(x, moments.mean, factor, bias, residual=added, relu=relu)

    assert_same_in(chosen, norm, x, residual, scale, bias)


@pytest.mark.parametrize("chosen", SUMS_AND_GRADIENTS, ids=str)
def test_fused_batch_norm_under_vmap_equals_the_plain_one(
    chosen: dict[str, Form], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wbc_jax.models.channel_sums._WORTH_A_LOOP", 0)

    def norm(x: jax.Array) -> jax.Array:
        moments = batch_moments(x)
        return normalise(x, moments.mean, jax.lax.rsqrt(moments.var + 1e-5), jnp.zeros(4), relu=True)

    assert_same_in(chosen, jax.vmap(norm), normal(2, 3, 4, 5, 4))


def test_recomputed_gradient_keeps_less_than_the_plain_one() -> None:
    """Of a bfloat16 map, whose float32 copies are what plain operations keep for their gradient."""

    def norm(x: jax.Array) -> jax.Array:
        moments = batch_moments(x)
        return normalise(x, moments.mean, jax.lax.rsqrt(moments.var + 1e-5), jnp.zeros(8), relu=True)

    def kept_bytes(form: Form) -> int:
        with forms(norm_gradient=form, channel_sums="native"):
            pull = jax.eval_shape(
                lambda x: jax.vjp(norm, x)[1], jax.ShapeDtypeStruct((4, 8, 8, 8), jnp.bfloat16)
            )
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(pull))

    one_map = 4 * 8 * 8 * 8 * 2
    assert kept_bytes("recomputed") < 2.5 * one_map  # twice the input, and vectors
    assert kept_bytes("native") > 4 * one_map


def test_mean_over_positions_and_channel_gate_equal_the_plain_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wbc_jax.models.channel_sums._WORTH_A_LOOP", 0)

    def gated(x: jax.Array, bias: jax.Array) -> jax.Array:
        return scale_channels(x, jax.nn.sigmoid(global_average_pool(x) + bias[None, :]))

    x, bias = normal(3, 4, 6, 5), normal(5, seed=1)
    assert_same_in({"channel_sums": "blocked"}, gated, x, bias)
    half = x.astype(jnp.bfloat16)
    with forms(channel_sums="blocked"):
        value, gradients = jax.value_and_grad(lambda *args: jnp.sum(gated(*args)), (0, 1))(half, bias)
    assert [v.dtype for v in (value, *gradients)] == [jnp.bfloat16, jnp.bfloat16, jnp.float32]
    np.testing.assert_allclose(global_average_pool(half), np.mean(half.astype(np.float32), (1, 2)), atol=1e-6)


@pytest.mark.parametrize("size", [(6, 8), (5, 7)], ids=str)
def test_projection_and_average_exchange(size: tuple[int, int]) -> None:
    def transition(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return projected_average(x, lambda y: convolve(y, kernel))

    assert_same_in({"transition": "pool_first"}, transition, normal(2, *size, 6), normal(1, 1, 6, 3, seed=1))


def test_dense_block_grown_in_place_equals_the_concatenated_one() -> None:
    trunk = DenseNet((2, 3), None, growth=4, width=6, stem_kernel=3)
    images = normal(2, 32, 32, 3)
    variables = trunk.init(jax.random.key(0), images, train=False)

    def grown(images: jax.Array) -> jax.Array:
        endpoints = cast(Endpoints, trunk.apply(variables, images, train=False))
        return endpoints["stage2"]

    assert_same_in({"growth": "in_place"}, grown, images)
    with forms(growth="in_place"):
        program = str(jax.make_jaxpr(grown)(images))
    assert "dynamic_update_slice" in program
    assert "concatenate" not in program


def test_moments_taken_once_equal_those_of_every_layer() -> None:
    trunk = DenseNet((2, 3), None, growth=4, width=6, stem_kernel=3)
    images = normal(2, 32, 32, 3)
    variables = trunk.init(jax.random.key(0), images, train=False)

    def trained(images: jax.Array) -> jax.Array:
        endpoints, updated = trunk.apply(variables, images, train=True, mutable=["batch_stats"])
        statistics = jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(updated)])
        return jnp.concatenate([cast(Endpoints, endpoints)["stage2"].ravel(), statistics])

    values, operations = [], []
    tables: tuple[dict[str, Form], ...] = ({"moments": "native"}, {"moments": "repeated"})
    for table in tables:
        with forms(**table):
            program = jax.jit(lambda images: trained(images)).lower(images).compile()
        analysis: Any = program.cost_analysis()
        operations.append(analysis["flops"])
        values.append(program(images))
    assert operations[1] > operations[0]
    np.testing.assert_allclose(values[1], values[0], atol=2e-5)


def test_a_stored_map_is_computed_once() -> None:
    def neighbours(x: jax.Array) -> jax.Array:
        y = jnp.pad(stored(jax.nn.relu(x * 2.0)), ((1, 1), (0, 0)))
        return y[2:] * 3.0 + stored(jax.nn.relu(x)) + y[:-2]

    def twice(x: jax.Array) -> jax.Array:
        y = stored(jnp.sin(x))
        return y @ y + jnp.cos(y)  # the sine serves a product, which is computed apart, and a cosine

    x = normal(64, 64)
    assert_same_in({"reuse": "stored"}, neighbours, x)
    assert_same_in({"reuse": "stored"}, jax.vmap(twice), normal(2, 8, 8))
    counts: dict[Form, int] = {}
    for form in ("stored", "native"):
        with forms(reuse=form):
            program = compiler.jit(lambda x: twice(x)).lower(x).compile().as_text()
        counts[form] = program.count(" sine(")
    assert counts == {"stored": 1, "native": 2}


@pytest.mark.parametrize("reuse", ["stored", "native"])
def test_the_end_of_a_block_equals_relu_of_a_sum(reuse: Form) -> None:
    """Two blocks in a row: the cotangent of the first one's output is a sum. At zero ReLU passes nothing."""
    shortcut, y = jnp.round(normal(2, 5, 4, 3)), jnp.round(normal(2, 5, 4, 3, seed=1))

    def blocks(add: Callable[..., jax.Array], shortcut: jax.Array, y: jax.Array) -> jax.Array:
        first = add(shortcut, y)
        return jnp.sum(jnp.sin(add(first, jnp.square(first) - 2.0)))

    with forms(reuse=reuse):
        ours = jax.value_and_grad(lambda *maps: blocks(add_relu, *maps), (0, 1))(shortcut, y)
    plain = jax.value_and_grad(lambda *maps: blocks(lambda a, b: jax.nn.relu(a + b), *maps), (0, 1))(
        shortcut, y
    )
    for mine, other in zip(jax.tree.leaves(ours), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-5)


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (1, 2)], ids=str)
def test_max_pool_sends_its_gradient_to_the_first_maximum(size: tuple[int, int]) -> None:
    x = jnp.round(normal(2, *size, 3))  # whole numbers: most windows hold their maximum more than once
    assert_same_in({"max_pool": "parity"}, max_pool, x, atol=1e-7)


CONVOLUTIONS = [
    # height, width, channels, features, kernel, stride, padding
    pytest.param(15, 17, 5, 6, 3, 1, 1, id="3x3"),
    pytest.param(16, 15, 5, 6, 3, 2, 1, id="3x3-stride-2"),
    pytest.param(20, 17, 3, 6, 7, 2, 3, id="stem"),
]


@pytest.mark.parametrize(
    ("height", "width", "channels", "features", "kernel", "stride", "padding"), CONVOLUTIONS
)
def test_convolutions_by_eigen_equal_the_native_ones(
    height: int, width: int, channels: int, features: int, kernel: int, stride: int, padding: int
) -> None:
    x, w = normal(2, height, width, channels), normal(kernel, kernel, channels, features, seed=1)
    eigen: dict[str, Form] = {"dense": "eigen"}
    assert_same_in(eigen, lambda x, w: convolve(x, w, stride=stride, padding=padding), x, w)


def test_compiler_options_follow_the_table() -> None:
    with forms(dense="eigen"):
        chosen = compiler_options()
    with forms(dense="native"):
        assert compiler_options() == {}
    assert list(chosen) == ["xla_cpu_experimental_ynn_fusion_type"]


def test_an_xla_without_the_option_compiles_by_its_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "_EIGEN_CONVOLUTIONS", {"xla_cpu_no_such_option": "1"})
    compiler._eigen_can_be_chosen.cache_clear()
    try:
        with forms(dense="eigen"):
            assert compiler_options() == {}
            assert compiler.jit(lambda x: x + 1)(1.0) == 2.0
    finally:
        compiler._eigen_can_be_chosen.cache_clear()


def test_eigen_computes_the_convolutions_of_a_program() -> None:
    x, w = normal(1, 16, 16, 32), normal(3, 3, 32, 32, seed=1)
    with forms(dense="eigen"):
        program = compiler.jit(lambda x, w: convolve(x, w, padding=1)).lower(x, w).compile().as_text()
    assert "convolution(" in program
    assert "ynn" not in program


def test_bfloat16_keeps_its_type_and_follows_float32() -> None:
    x = normal(2, 4, 4, 6).astype(jnp.bfloat16)

    def norm(x: jax.Array) -> jax.Array:
        moments = batch_moments(x)
        return normalise(x, moments.mean, jax.lax.rsqrt(moments.var + 1e-5), jnp.zeros(6), relu=True)

    with forms(channel_sums="blocked", norm_gradient="recomputed"):
        y, pull = jax.vjp(norm, x)
        (d_x,) = pull(y)
    assert y.dtype == d_x.dtype == jnp.bfloat16
    np.testing.assert_allclose(y.astype(jnp.float32), norm(x.astype(jnp.float32)), atol=2e-2)


def test_a_backend_without_measurements_computes_every_kind_natively(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = {kind for _, kind in lowerings.WINNERS}
    for backend in ("gpu", "tpu"):
        monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
        assert {lowerings.form_of(kind) for kind in kinds} == {"native"}


def test_a_mean_over_pixels_is_exported_for_batches_of_any_size() -> None:
    images = jax.ShapeDtypeStruct(jax_export.symbolic_shape("b, 64, 64, 32"), jnp.float32)
    with forms(channel_sums="blocked"):
        program = jax_export.export(jax.jit(lambda x: global_average_pool(x)))(images)
    x = normal(3, 64, 64, 32)
    np.testing.assert_allclose(program.call(x), np.mean(x, axis=(1, 2)), atol=1e-5)


def test_overrides_end_with_their_block() -> None:
    before = lowerings.form_of("pointwise")
    with forms(pointwise="native"):
        assert lowerings.form_of("pointwise") == "native"
    assert lowerings.form_of("pointwise") == before

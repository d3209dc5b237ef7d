"""Forms by name: what the command line accepts, and that each that it accepts makes another program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wbc_jax.bench.form_names import parse_forms
from wbc_jax.errors import UsageError
from wbc_jax.models import create_model
from wbc_jax.models.batch_norm import normalise
from wbc_jax.models.compiler import compiler_options
from wbc_jax.models.layers import convolve, global_average_pool, max_pool, projected_average
from wbc_jax.models.lowerings import FORMS, KINDS, Form, forms
from wbc_jax.models.stored import stored


def convolution(size: int, channels: int, features: int, side: int = 8, groups: int = 1, **how: Any) -> str:
    shapes = (2, side, side, channels), (size, size, channels // groups, features)
    x, kernel = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)

    def loss(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jnp.sum(convolve(x, kernel, padding=size // 2, groups=groups, **how))

    return program(jax.grad(loss, (0, 1)), x, kernel)


def on_map(function: Callable[[jax.Array], jax.Array]) -> str:
    return program(jax.grad(lambda x: jnp.sum(function(x))), jax.ShapeDtypeStruct((2, 8, 8, 4), jnp.float32))


def program(function: Callable[..., Any], *args: Any) -> str:
    return jax.jit(function).lower(*args).as_text()


def dense_block(train: bool) -> str:
    model: Any = create_model("densenet_tiny", num_classes=5)
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    variables = jax.eval_shape(lambda key, x: model.init(key, x, train=False), key, images)

    def apply(variables: Any, images: jax.Array) -> Any:
        return model.apply(variables, images, train=train, mutable=["batch_stats"] if train else False)

    return program(apply, variables, images)


def halved(x: jax.Array) -> jax.Array:
    return projected_average(x, lambda y: convolve(y, jnp.ones((1, 1, 4, 2))))


PROGRAMS: dict[str, Callable[[], str]] = {
    "three_by_three": lambda: convolution(3, 128, 128, side=16),
    "library": lambda: convolution(3, 16, 16),
    "pointwise": lambda: convolution(1, 16, 16),
    "grouped": lambda: convolution(3, 128, 128, groups=32),
    "depthwise": lambda: convolution(3, 128, 128, groups=128),
    "dense": lambda: str(compiler_options()),
    "channel_sums": lambda: on_map(lambda x: global_average_pool(x)),
    "max_pool": lambda: on_map(max_pool),
    "stem": lambda: convolution(7, 3, 16, side=16, stride=2),
    "large_kernel": lambda: convolution(9, 16, 16, side=3),
    "narrow": lambda: convolution(3, 32, 8),
    "strided": lambda: convolution(3, 16, 16, stride=2),
    "reuse": lambda: on_map(lambda x: stored(2 * x) ** 2),
    "transition": lambda: on_map(halved),
    "growth": lambda: dense_block(train=False),
    "norm_gradient": lambda: on_map(lambda x: normalise(x, *(jnp.ones(4),) * 3, relu=True)),
    "moments": lambda: dense_block(train=True),
}


@pytest.mark.parametrize("kind", FORMS)
def test_every_form_of_a_kind_is_another_program(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "device_count", lambda: 1)  # for more, no library is called
    native: dict[str, Form] = dict.fromkeys(KINDS, "native")
    programs = {}
    for form in FORMS[kind]:
        with forms(**{**native, kind: form}):
            programs[form] = PROGRAMS[kind]()
    assert FORMS[kind][0] == "native"
    assert len(set(programs.values())) == len(FORMS[kind]) > 1


@pytest.mark.parametrize("form", FORMS["depthwise"][1:])
def test_depthwise_convolutions_merge_and_split(form: Form) -> None:
    rng = np.random.default_rng(0)
    x, kernel = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((2, 6, 6, 64), (3, 3, 1, 64)))

    def both() -> Any:
        return jax.vjp(lambda x, kernel: convolve(x, kernel, stride=2, padding=1, groups=64), x, kernel)

    with forms(depthwise="native"):
        y, pull = both()
    with forms(depthwise=form):
        other, pull_other = both()
    np.testing.assert_allclose(other, y, atol=1e-5)
    for own, reference in zip(pull_other(y), pull(y), strict=True):
        np.testing.assert_allclose(own, reference, atol=1e-4)


def test_forms_are_read_by_kind() -> None:
    assert parse_forms("stem=padded,grouped=merged64", where="--forms") == {
        "stem": "padded",
        "grouped": "merged64",
    }


@pytest.mark.parametrize(
    ("text", "found", "expected"),
    [
        ("stem=dot", "stem=dot", "stem= native, padded, space_to_depth"),
        (
            "stem=round,pool=parity",
            "stem=round, pool=parity",
            "stem= native, padded, space_to_depth; kinds three_by_three, library, pointwise, ",
        ),
        ("stem", "stem", "stem= native, padded"),
        ("stem=padded,stem=native", "stem=native after stem=padded", "each kind once"),
        ("", "no such form: ", "kinds three_by_three, library"),
    ],
)
def test_forms_that_a_kind_has_not_are_refused_with_those_that_it_has(
    text: str, found: str, expected: str
) -> None:
    with pytest.raises(UsageError) as error:
        parse_forms(text, where="--forms")
    assert found in error.value.found
    assert error.value.expected.startswith(expected)
    assert error.value.where == "--forms"

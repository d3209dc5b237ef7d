"""Optimisers and schedules against hand-written NumPy oracles."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from wbc_jax.config import OptimConfig
from wbc_jax.models.lowerings import forms
from wbc_jax.train.optim import global_norm, make_optimizer, update_completed
from wbc_jax.train.schedules import learning_rate_at, make_schedule

PARAMS = {
    "conv": {"kernel": jnp.asarray([[0.5, -1.0], [2.0, 0.1]])},
    "norm": {"scale": jnp.asarray([1.0, 2.0]), "bias": jnp.asarray([0.3, -0.2])},
}
CONSTANT = {"schedule": "constant", "learning_rate": 0.01}


def _gradients(steps: int) -> list[dict]:
    random = np.random.default_rng(1)
    return [
        jax.tree.map(lambda p: jnp.asarray(random.normal(size=p.shape), jnp.float32), PARAMS)
        for _ in range(steps)
    ]


def _train(optim: OptimConfig, gradients: list[dict], params=PARAMS) -> list[dict]:
    """Parameters after each gradient."""
    tx = make_optimizer(optim, steps_per_epoch=4, epochs=5)
    state, trace = jax.jit(tx.init)(params), []
    update = jax.jit(tx.update)
    for gradient in gradients:
        updates, state = update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        trace.append(params)
    return trace


def _radam_oracle(gradients: list[np.ndarray], p: np.ndarray, lr: float, b1: float, b2: float) -> list:
    """RAdam as printed by Liu et al. 2020, algorithm 2, in float64."""
    m, v, trace = np.zeros_like(p), np.zeros_like(p), []
    rho_inf = 2 / (1 - b2) - 1
    for t, g in enumerate(gradients, start=1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        m_hat = m / (1 - b1**t)
        rho = rho_inf - 2 * t * b2**t / (1 - b2**t)
        step = m_hat
        if rho >= 5:
            r = math.sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
            step = r * m_hat / (np.sqrt(v / (1 - b2**t)) + 1e-8)
        p = p - lr * step
        trace.append(p)
    return trace


def _assert_radam_steps(ours: list, oracle: list, start: np.ndarray, *, rectified_rtol: float) -> None:
    """Compares the updates. optax's float32 rho_t limits the accuracy of r_t, which exists from update 6 on."""
    moves = [np.diff(np.asarray([start, *trace], np.float64), axis=0) for trace in (ours, oracle)]
    np.testing.assert_allclose(moves[0][:5], moves[1][:5], rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(moves[0][5:], moves[1][5:], rtol=rectified_rtol, atol=1e-6)


def test_radam_equals_the_oracle_for_eight_steps():
    gradients = _gradients(8)
    ours = _train(OptimConfig(name="radam", **CONSTANT), gradients)
    kernel = np.asarray(PARAMS["conv"]["kernel"], np.float64)
    oracle = _radam_oracle(
        [np.asarray(g["conv"]["kernel"], np.float64) for g in gradients], kernel, 0.01, 0.9, 0.999
    )
    _assert_radam_steps([p["conv"]["kernel"] for p in ours], oracle, kernel, rectified_rtol=0.015)


@pytest.mark.parametrize(("b2", "rectified_rtol"), [(0.999, 0.015), (0.99, 1e-3)])
def test_optax_radam_switches_at_step_six_for_both_decays(b2, rectified_rtol):
    """The library's transform itself: a momentum step for t <= 5, rectified from 6 on."""
    gradients = [np.float64(g) for g in (1.0, -0.5, 2.0, 0.3, 1.5, -1.0, 0.7, 0.2)]
    p, ours = jnp.asarray(0.0), []
    with jax.numpy_dtype_promotion("standard"):
        tx = optax.chain(optax.scale_by_radam(b1=0.9, b2=b2), optax.scale_by_learning_rate(0.1))
        state = tx.init(p)
        for g in gradients:
            updates, state = tx.update(jnp.asarray(g, jnp.float32), state)
            p = optax.apply_updates(p, updates)
            ours.append(float(p))
    oracle = _radam_oracle(gradients, np.zeros(()), 0.1, 0.9, b2)
    _assert_radam_steps(ours, oracle, np.zeros(()), rectified_rtol=rectified_rtol)
    rho = [2 / (1 - b2) - 1 - 2 * t * b2**t / (1 - b2**t) for t in (5, 6)]
    assert rho[0] < 5 <= rho[1]


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_other_optimisers_equal_torch(name):
    gradients = _gradients(6)
    ours = _train(OptimConfig(name=name, **CONSTANT), gradients)
    leaf = torch.nn.Parameter(torch.tensor(np.array(PARAMS["conv"]["kernel"])))
    references = {"sgd": lambda: torch.optim.SGD([leaf], lr=0.01, momentum=0.9)}
    reference = references.get(name, lambda: torch.optim.Adam([leaf], lr=0.01))()
    for step, gradient in enumerate(gradients):
        leaf.grad = torch.tensor(np.array(gradient["conv"]["kernel"]))
        reference.step()
        np.testing.assert_allclose(ours[step]["conv"]["kernel"], leaf.detach().numpy(), rtol=1e-5, atol=1e-7)


def test_weight_decay_is_decoupled_and_spares_norms_and_biases():
    zero = [jax.tree.map(jnp.zeros_like, PARAMS)]
    (after,) = _train(OptimConfig(name="adamw", weight_decay=0.1, **CONSTANT), zero)
    np.testing.assert_allclose(
        after["conv"]["kernel"], PARAMS["conv"]["kernel"] * (1 - 0.01 * 0.1), rtol=1e-6
    )
    for name in ("scale", "bias"):
        np.testing.assert_array_equal(after["norm"][name], PARAMS["norm"][name])


def test_radam_decay_is_not_scaled_by_the_rectifier():
    gradients = _gradients(7)
    plain = _train(OptimConfig(name="radam", **CONSTANT), gradients)
    decayed = _train(OptimConfig(name="radam", weight_decay=0.1, **CONSTANT), gradients)
    expected = np.asarray(PARAMS["conv"]["kernel"], np.float64)
    steps = np.diff([PARAMS["conv"]["kernel"], *[p["conv"]["kernel"] for p in plain]], axis=0)
    for step in steps:
        expected = expected * (1 - 0.01 * 0.1) + step
    np.testing.assert_allclose(decayed[-1]["conv"]["kernel"], expected, rtol=1e-5)


def test_clipping_bounds_the_global_norm_and_keeps_the_direction():
    gradient = jax.tree.map(lambda p: p * 10, PARAMS)
    optim = OptimConfig(name="sgd", momentum=0.0, clip_norm=1.5, schedule="constant", learning_rate=1.0)
    (after,) = _train(optim, [gradient])
    moved = jnp.concatenate([x.ravel() for x in jax.tree.leaves(jax.tree.map(jnp.subtract, PARAMS, after))])
    direction = jnp.concatenate([x.ravel() for x in jax.tree.leaves(gradient)])
    assert float(jnp.linalg.norm(moved)) == pytest.approx(1.5, rel=1e-5)
    np.testing.assert_allclose(moved, direction * (1.5 / jnp.linalg.norm(direction)), rtol=1e-4)
    small = jax.tree.map(lambda p: p * 0.01, PARAMS)
    (after,) = _train(optim, [small])
    np.testing.assert_allclose(
        after["conv"]["kernel"], PARAMS["conv"]["kernel"] - small["conv"]["kernel"], rtol=1e-6
    )


@pytest.mark.parametrize("sums", ["native", "blocked"])
def test_global_norm_equals_the_one_in_float64(sums: str):
    random = np.random.default_rng(2)
    shapes = [(), (7,), (3, 3, 64, 96), (1, 1, 512, 512), (5, 3)]  # the third and fourth are summed in a loop
    leaves = [np.asarray(random.normal(3.0, 1.0, size=s), np.float32) for s in shapes]
    with forms(channel_sums=sums):
        norm = jax.jit(global_norm)({str(i): jnp.asarray(leaf) for i, leaf in enumerate(leaves)})
    expected = math.sqrt(sum(float(np.sum(np.square(leaf.astype(np.float64)))) for leaf in leaves))
    assert norm.dtype == jnp.float32
    assert float(norm) == pytest.approx(expected, rel=1e-6)
    assert float(global_norm({})) == 0.0


def test_accumulation_applies_the_mean_gradient_with_the_last_batch():
    gradients = _gradients(4)
    means = [jax.tree.map(lambda a, b: (a + b) / 2, gradients[i], gradients[i + 1]) for i in (0, 2)]
    halves = _train(OptimConfig(name="radam", accumulate_steps=2, **CONSTANT), gradients)
    whole = _train(OptimConfig(name="radam", **CONSTANT), means)
    np.testing.assert_array_equal(halves[0]["conv"]["kernel"], PARAMS["conv"]["kernel"])
    for half, full in ((1, 0), (3, 1)):
        np.testing.assert_allclose(halves[half]["conv"]["kernel"], whole[full]["conv"]["kernel"], rtol=1e-5)


def test_update_completed_follows_accumulation():
    tx = make_optimizer(OptimConfig(accumulate_steps=3), steps_per_epoch=6, epochs=1)
    state, seen = tx.init(PARAMS), []
    for gradient in _gradients(6):
        _, state = tx.update(gradient, state, PARAMS)
        seen.append(bool(update_completed(state)))
    assert seen == [False, False, True, False, False, True]


def test_cosine_with_warmup_equals_the_formula_and_the_host_twin():
    optim = OptimConfig(learning_rate=0.2, schedule="cosine", warmup_epochs=0.5)
    schedule = jax.jit(make_schedule(optim, steps_per_epoch=8, epochs=3))
    warmup, last = 4, 24
    for t in range(30):
        expected = 0.2 * min((t + 1) / warmup, 1.0)
        expected *= 0.5 * (1 + math.cos(math.pi * min(max((t - warmup) / (last - warmup), 0), 1)))
        assert float(schedule(jnp.int32(t))) == pytest.approx(expected, rel=1e-4, abs=1e-7)
        assert learning_rate_at(optim, t, steps_per_epoch=8, epochs=3) == pytest.approx(
            expected, rel=1e-4, abs=1e-7
        )


def test_piecewise_drops_at_its_epochs():
    optim = OptimConfig(
        learning_rate=1.0, schedule="piecewise", piecewise_epochs=(1, 2.5), piecewise_factors=(0.5, 0.2)
    )
    rates = [learning_rate_at(optim, t, steps_per_epoch=4, epochs=4) for t in range(12)]
    np.testing.assert_allclose(rates, [1.0] * 4 + [0.5] * 6 + [0.2] * 2, rtol=1e-6)


def test_schedule_counts_updates_not_batches():
    optim = OptimConfig(learning_rate=1.0, schedule="cosine", accumulate_steps=4)
    rates = [learning_rate_at(optim, step, steps_per_epoch=8, epochs=2) for step in range(16)]
    expected = [0.5 * (1 + math.cos(math.pi * (step // 4) / 4)) for step in range(16)]
    np.testing.assert_allclose(rates, expected, rtol=1e-5)
    inside = make_schedule(optim, steps_per_epoch=8, epochs=2)
    np.testing.assert_allclose([float(inside(jnp.int32(u))) for u in range(4)], expected[::4], rtol=1e-5)


def test_unknown_names_are_refused_with_the_choices():
    with pytest.raises(ValueError, match="radam, adam, adamw, sgd"):
        make_optimizer(OptimConfig(name="lion"), steps_per_epoch=1, epochs=1)  # pyright: ignore
    optim = OptimConfig(schedule="linear")  # pyright: ignore
    with pytest.raises(ValueError, match="constant, cosine, piecewise"):
        make_schedule(optim, steps_per_epoch=1, epochs=1)(jnp.int32(0))

"""The training state: creation, averages, what evaluation sees."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_training import SIZE, ToyNet, assert_trees_equal

from wbc_jax.config import OptimConfig
from wbc_jax.train.optim import make_optimizer
from wbc_jax.train.state import abstract_state, create_state, variables_for_eval, with_variables

TX = make_optimizer(OptimConfig(), steps_per_epoch=4, epochs=1)


def test_starts_at_step_zero_with_the_networks_own_initial_values():
    key = jax.random.key(3)
    state = create_state(ToyNet(), TX, key, SIZE)
    assert state.step.dtype == jnp.int32
    assert state.step.shape == ()
    assert int(state.step) == 0
    variables = ToyNet().init(key, jnp.zeros((2, SIZE, SIZE, 3)), train=False)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), state.params, variables["params"])
    assert_trees_equal(state.batch_stats, variables["batch_stats"])
    assert state.ema_params is None


def test_same_key_same_bits_other_key_other_bits():
    first, second = (create_state(ToyNet(), TX, jax.random.key(7), SIZE) for _ in range(2))
    assert_trees_equal(first, second)
    other = create_state(ToyNet(), TX, jax.random.key(8), SIZE)
    assert not np.array_equal(first.params["conv1"]["kernel"], other.params["conv1"]["kernel"])


def test_average_starts_at_the_parameters_in_memory_of_its_own():
    state = create_state(ToyNet(), TX, jax.random.key(0), SIZE, ema=True)
    assert_trees_equal(state.ema_params, state.params)
    jax.jit(lambda s: s.replace(step=s.step + 1), donate_argnums=0)(state)  # a shared buffer is refused here


def test_abstract_state_describes_the_real_one():
    options = {"ema": True, "freeze": ("conv1",)}
    real = create_state(ToyNet(), TX, jax.random.key(0), SIZE, **options)
    abstract = abstract_state(ToyNet(), TX, SIZE, **options)
    assert jax.tree.structure(real) == jax.tree.structure(abstract)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), real) == jax.tree.map(
        lambda x: (x.shape, x.dtype), abstract
    )


def test_frozen_parameters_have_no_optimiser_state():
    frozen = create_state(ToyNet(), TX, jax.random.key(0), SIZE, freeze=("conv1", "bn1"))
    paths = [jax.tree_util.keystr(p) for p, _ in jax.tree_util.tree_leaves_with_path(frozen.opt_state)]
    assert any("conv2" in path for path in paths)
    assert not any("conv1" in path or "bn1" in path for path in paths)
    assert "conv1" in frozen.params


def test_unknown_prefix_is_refused_with_the_real_ones():
    with pytest.raises(ValueError, match="bn1, bn2, conv1, conv2, head"):
        create_state(ToyNet(), TX, jax.random.key(0), SIZE, freeze=("trunk",))


def test_evaluation_sees_the_average_where_one_is_kept():
    state = create_state(ToyNet(), TX, jax.random.key(0), SIZE)
    assert variables_for_eval(state) == {"params": state.params, "batch_stats": state.batch_stats}
    doubled = jax.tree.map(lambda x: x * 2, (state.params, state.batch_stats))
    averaged = state.replace(ema_params=doubled[0], ema_batch_stats=doubled[1])
    assert variables_for_eval(averaged) == {"params": doubled[0], "batch_stats": doubled[1]}


def test_other_variables_replace_parameters_statistics_and_average():
    state = create_state(ToyNet(), TX, jax.random.key(0), SIZE, ema=True)
    other = jax.tree.map(lambda x: x + 1, {"params": state.params, "batch_stats": state.batch_stats})
    changed = with_variables(state, other)
    assert_trees_equal(changed.params, other["params"])
    assert_trees_equal(changed.batch_stats, other["batch_stats"])
    assert_trees_equal(changed.ema_params, other["params"])
    assert_trees_equal(changed.ema_batch_stats, other["batch_stats"])
    jax.jit(lambda s: s.replace(step=s.step + 1), donate_argnums=0)(changed)


def test_network_without_batch_norm_has_empty_statistics():
    assert create_state(ToyNet(batch_norm=False), TX, jax.random.key(0), SIZE).batch_stats == {}

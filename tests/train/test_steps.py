"""Training step: learning, randomness, averages, freezing, bad numbers, precision."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toy_training import (
    TASK,
    ToyNet,
    assert_trees_close,
    assert_trees_equal,
    make_batch,
    make_training,
    no_augmentation,
    noise_augmentation,
    run,
)

from wbc_jax.config import OptimConfig
from wbc_jax.train.augment import mixup
from wbc_jax.train.steps import make_train_step, step_keys

SGD = OptimConfig(name="sgd", learning_rate=0.1, momentum=0.0, schedule="constant")


def _half(batch, start, stop):
    return jax.tree.map(lambda x: x[start:stop], batch)


def test_loss_falls_and_a_tiny_batch_is_fitted():
    optim = OptimConfig(name="radam", learning_rate=0.1, schedule="constant")
    state, step = make_training(optim=optim)
    state, history = run(jax.jit(step), state, [make_batch(8)] * 40)
    losses = [sums["loss_sum"] / sums["count"] for sums in history]
    assert losses[0] == pytest.approx(np.log(4), abs=0.7)
    assert losses[-1] < 0.1 * losses[0]
    assert history[-1]["correct_sum"] == 8
    assert int(state.step) == 40
    assert not np.array_equal(state.batch_stats["bn1"]["mean"], np.zeros(8))


def test_sums_equal_a_plain_computation_outside_the_step():
    model, batch = ToyNet(), make_batch(8)
    batch = dataclasses.replace(batch, mask=np.array([1, 1, 1, 0, 1, 1, 0, 1], np.float32))
    state, step = make_training(model)
    images = no_augmentation(jax.random.key(0), jnp.asarray(batch.images))

    def loss_of(params):
        (logits, _), _ = model.apply(
            {"params": params, "batch_stats": state.batch_stats}, images, train=True, mutable=["batch_stats"]
        )
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(batch.labels))
        return jnp.sum(losses * batch.mask) / 6.0, logits

    (loss, logits), gradient = jax.jit(jax.value_and_grad(loss_of, has_aux=True))(state.params)
    _, sums = jax.jit(step)(state, batch)
    right = (np.asarray(logits).argmax(axis=1) == batch.labels) * batch.mask
    expected = {
        "steps": 1.0,
        "count": 6.0,
        "loss_sum": float(loss) * 6,
        "correct_sum": right.sum(),
        "grad_norm": float(optax.tree.norm(gradient)),
        "nonfinite": 0.0,
        "skipped": 0.0,
    }
    assert all(value.dtype == jnp.float32 and value.shape == () for value in sums.values())
    assert {name: float(value) for name, value in sums.items()} == pytest.approx(expected, rel=1e-4)


def test_randomness_is_a_function_of_seed_and_step():
    model = ToyNet(dropout_rate=0.5)
    batches = [make_batch(8, seed) for seed in range(3)]
    state, step = make_training(model, augment=noise_augmentation, seed=0)
    step = jax.jit(step)
    (first, sums), (second, sums_again) = run(step, state, batches), run(step, state, batches)
    assert_trees_equal(first, second)
    assert sums == sums_again
    state, step = make_training(model, augment=noise_augmentation, seed=1)
    other, _ = run(jax.jit(step), state, batches)
    assert not np.array_equal(first.params["head"]["kernel"], other.params["head"]["kernel"])


def test_each_step_draws_differently():
    seen = []

    def spy(key, images):
        jax.debug.callback(lambda data: seen.append(tuple(np.asarray(data))), jax.random.key_data(key))
        return no_augmentation(key, images)

    state, step = make_training(augment=spy)
    run(jax.jit(step), state, [make_batch(4)] * 3)
    jax.effects_barrier()
    assert len(set(seen)) == 3


def test_resumed_state_repeats_the_step():
    state, step = make_training(augment=noise_augmentation)
    batches = [make_batch(8, seed) for seed in range(4)]
    step = jax.jit(step)
    through, _ = run(step, state, batches)
    halfway, _ = run(step, state, batches[:2])
    saved = jax.tree.map(np.asarray, halfway)  # host copies, as a checkpoint holds them
    resumed, _ = run(step, saved, batches[2:])
    assert_trees_equal(resumed, through)


def test_accumulated_halves_equal_the_whole_batch():
    batch, model = make_batch(8), ToyNet(batch_norm=False)
    whole, whole_step = make_training(model, SGD)
    whole, _ = run(jax.jit(whole_step), whole, [batch])
    halves, half_step = make_training(model, dataclasses.replace(SGD, accumulate_steps=2))
    start = halves.params
    middle, _ = run(jax.jit(half_step), halves, [_half(batch, 0, 4)])
    assert_trees_equal(middle.params, start)
    halves, _ = run(jax.jit(half_step), middle, [_half(batch, 4, 8)])
    assert_trees_close(halves.params, whole.params)
    assert int(halves.step) == 2


@pytest.mark.parametrize("accumulate_steps", [1, 2])
def test_average_equals_the_oracle_and_moves_with_updates_only(accumulate_steps):
    optim = dataclasses.replace(SGD, accumulate_steps=accumulate_steps)
    state, step = make_training(optim=optim, ema=True, ema_decay=0.9)
    step = jax.jit(step)
    oracle = jax.tree.map(lambda p: np.asarray(p, np.float64), (state.params, state.batch_stats))
    for number in range(1, 5):
        state, _ = step(state, make_batch(8, number))
        if number % accumulate_steps == 0:
            oracle = jax.tree.map(
                lambda a, p: 0.9 * a + 0.1 * np.asarray(p, np.float64),
                oracle,
                (state.params, state.batch_stats),
            )
        assert_trees_close((state.ema_params, state.ema_batch_stats), oracle)
    assert not np.allclose(state.ema_params["head"]["kernel"], state.params["head"]["kernel"])


def test_frozen_leaves_stay_bit_identical_and_the_rest_moves():
    freeze = ("conv1", "bn1")
    state, step = make_training(freeze=freeze, ema=True, ema_decay=0.9)
    after, _ = run(jax.jit(step), state, [make_batch(8, seed) for seed in range(3)])
    for tree, before in ((after.params, state.params), (after.ema_params, state.ema_params)):
        for name in freeze:
            assert_trees_equal(tree[name], before[name])
        assert not np.array_equal(tree["conv2"]["kernel"], before["conv2"]["kernel"])
    assert_trees_equal(after.batch_stats["bn1"], state.batch_stats["bn1"])
    assert_trees_equal(after.ema_batch_stats["bn1"], state.ema_batch_stats["bn1"])
    assert not np.array_equal(after.batch_stats["bn2"]["mean"], state.batch_stats["bn2"]["mean"])


def _convolutions(freeze: tuple[str, ...]) -> int:
    state, step = make_training(freeze=freeze)
    compiled = jax.jit(step).lower(state, make_batch(4)).as_text()
    return compiled.count("stablehlo.convolution")


def test_frozen_convolutions_are_not_differentiated():
    """Two forward convolutions; each trained kernel costs one more, a trained kernel below another two."""
    assert _convolutions(()) == 5
    assert _convolutions(("conv1",)) == 4  # bn1 below conv2 still needs conv2's data gradient
    assert _convolutions(("conv1", "bn1")) == 3
    assert _convolutions(("conv1", "bn1", "conv2", "bn2")) == 2


def test_frozen_statistics_are_used_and_kept_while_dropout_stays_on():
    model, batch = ToyNet(dropout_rate=0.5), make_batch(8)
    state, step = make_training(model, freeze_batch_stats=True)
    step = jax.jit(step)
    after, sums = step(state, batch)
    assert_trees_equal(after.batch_stats, state.batch_stats)
    _, other = step(state.replace(step=jnp.int32(1)), batch)
    assert float(sums["loss_sum"]) != float(other["loss_sum"])
    # Without dropout the loss is that of evaluation: the stored statistics normalised the batch.
    plain = ToyNet()
    _, without = jax.jit(make_training(plain, freeze_batch_stats=True)[1])(state, batch)
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    images = no_augmentation(None, jnp.asarray(batch.images))
    logits, _ = jax.jit(lambda: plain.apply(variables, images, train=False))()
    expected = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(batch.labels)).sum()
    assert float(without["loss_sum"]) == pytest.approx(float(expected), rel=1e-5)


def _poison(key, images):
    """Not a number in the batch whose first pixel is 255."""
    bad = images[0, 0, 0, 0] == jnp.uint8(255)
    return no_augmentation(key, images) * jnp.where(bad, jnp.nan, 1.0)


def _with_first_pixel(batch, value):
    images = batch.images.copy()
    images[0, 0, 0, 0] = value
    return dataclasses.replace(batch, images=images)


def test_nonfinite_step_is_skipped_and_counted():
    state, step = make_training(augment=_poison, ema=True, ema_decay=0.9, skip_nonfinite_updates=True)
    step = jax.jit(step)
    good, bad = _with_first_pixel(make_batch(8), 0), _with_first_pixel(make_batch(8), 255)
    state, sums = step(state, good)
    assert float(sums["skipped"]) == float(sums["nonfinite"]) == 0.0
    after, sums = step(state, bad)
    assert_trees_equal(after.replace(step=state.step), state)
    assert int(after.step) == int(state.step) + 1  # the batch is used up: data and randomness move on
    assert float(sums["skipped"]) == float(sums["nonfinite"]) == 1.0
    assert all(
        float(sums[name]) == 0.0 for name in ("loss_sum", "correct_sum", "count", "grad_norm", "steps")
    )
    again, _ = step(after, good)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(again))


def test_nonfinite_step_is_reported_where_it_is_not_skipped():
    state, step = make_training(augment=_poison)
    after, sums = jax.jit(step)(state, _with_first_pixel(make_batch(8), 255))
    assert float(sums["nonfinite"]) == 1.0
    assert float(sums["skipped"]) == 0.0
    assert np.isnan(float(sums["loss_sum"]))
    assert not np.isfinite(after.params["head"]["kernel"]).all()


def test_bfloat16_activations_leave_parameters_statistics_and_sums_float32():
    state, step = make_training(ToyNet(dtype=jnp.bfloat16), ema=True, ema_decay=0.9)
    after, history = run(jax.jit(step), state, [make_batch(8)] * 20)
    floats = [leaf for leaf in jax.tree.leaves(after) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    assert {leaf.dtype for leaf in floats} == {jnp.dtype("float32")}
    assert history[-1]["loss_sum"] < 0.5 * history[0]["loss_sum"]
    exact, exact_step = make_training(ToyNet())
    _, sums = jax.jit(exact_step)(exact, make_batch(8))
    assert history[0]["loss_sum"] == pytest.approx(float(sums["loss_sum"]), rel=0.05)
    assert history[0]["loss_sum"] != float(sums["loss_sum"])  # the activations really were coarser


def test_class_weights_and_smoothing_reach_the_loss():
    batch = make_batch(16)
    weights = (0.2, 1.0, 3.0, 0.5)
    state, step = make_training(class_weights=weights, label_smoothing=0.1)
    _, sums = jax.jit(step)(state, batch)
    logits = _train_logits(state, no_augmentation(None, jnp.asarray(batch.images)))
    log_p = np.asarray(jax.nn.log_softmax(logits), np.float64)
    targets = np.eye(4)[batch.labels] * 0.9 + 0.1 / 4
    expected = -(targets * log_p * weights).sum() / np.array(weights)[batch.labels].sum()
    assert float(sums["loss_sum"]) / 16 == pytest.approx(expected, rel=1e-5)


def _train_logits(state, images):
    """Logits of the initial network in training mode."""
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    return jax.jit(lambda: ToyNet().apply(variables, images, train=True, mutable=["batch_stats"]))()[0][0]


def test_mixup_mixes_images_and_labels_with_one_lambda():
    """The step's sums are those of the images and labels that mixup returns for the step's key."""
    state, step = make_training(mixup_alpha=0.4, seed=5)
    batch = make_batch(8)
    _, sums = jax.jit(step)(state, batch)
    key = step_keys(5, state.step).mixup
    images, targets, lam = mixup(
        key, no_augmentation(key, jnp.asarray(batch.images)), jnp.eye(4)[batch.labels], 0.4
    )
    assert 0 < float(lam) < 1
    logits = _train_logits(state, images)
    expected = optax.softmax_cross_entropy(logits, targets).sum()
    assert float(sums["loss_sum"]) == pytest.approx(float(expected), rel=1e-5)
    predicted = np.asarray(logits).argmax(axis=1)
    share = np.asarray(targets)[np.arange(8), predicted].sum()
    assert float(sums["correct_sum"]) == pytest.approx(float(share), rel=1e-5)


def test_no_mixup_when_alpha_is_zero(monkeypatch):
    from wbc_jax.train import steps

    monkeypatch.setattr(steps, "mix", lambda *_: pytest.fail("mixup was called"))
    state, step = make_training(mixup_alpha=0.0)
    jax.eval_shape(step, state, make_batch(4))


def test_a_model_tied_to_an_axis_the_step_lacks_is_refused():
    tx = optax.sgd(0.1)
    with pytest.raises(ValueError, match="create the model with bn_axis_name=None"):
        make_train_step(ToyNet(bn_axis_name="data"), tx, TASK, no_augmentation)
    with pytest.raises(ValueError, match="create the model with bn_axis_name='data'"):
        make_train_step(ToyNet(), tx, TASK, no_augmentation, axis_name="data")

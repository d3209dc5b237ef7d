"""Compiled steps: one trace, donation, any number of devices, pmap, resident data."""

from __future__ import annotations

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_training import (
    SIZE,
    TASK,
    ToyNet,
    assert_trees_close,
    assert_trees_equal,
    make_batch,
    make_training,
    noise_augmentation,
    run,
)

from wbc_jax.data.batch import Batch
from wbc_jax.train.parallel import (
    compile_eval_step,
    compile_train_step,
    data_mesh,
    pmap_train_step,
    replicate,
    shard_batch,
)
from wbc_jax.train.state import variables_for_eval
from wbc_jax.train.steps import make_eval_step

BATCHES = [make_batch(8, seed) for seed in range(4)]


def _mesh(count: int):
    if len(jax.devices()) < count:
        pytest.skip(f"needs {count} devices")
    return data_mesh(jax.devices()[:count])


class Run:
    """Four steps on `count` devices; with `random`, noise, dropout and mixup are on."""

    def __init__(self, mode: str, count: int, *, random: bool = False) -> None:
        axis = "data" if mode == "pmap" else None
        compile_step = pmap_train_step if mode == "pmap" else compile_train_step
        options = {"augment": noise_augmentation, "mixup_alpha": 0.4} if random else {}
        mesh = _mesh(count)
        model = ToyNet(bn_axis_name=axis, dropout_rate=0.5 if random else 0.0)
        state, step = make_training(model, axis_name=axis, **options)
        self.step = compile_step(step, mesh)
        batches = [shard_batch(batch, mesh) for batch in BATCHES]
        self.state, self.sums = run(self.step, replicate(state, mesh), batches)


cached_run = cache(Run)


def _assert_same_run(ours, theirs):
    assert_trees_close(ours.state, theirs.state, rtol=1e-4, atol=1e-5)
    for a, b in zip(ours.sums, theirs.sums, strict=True):
        assert a == pytest.approx(b, rel=1e-4)


@pytest.mark.parametrize("count", [2, 4])
def test_number_of_devices_does_not_change_the_run(count):
    """Augmentation, mixup, dropout and BatchNorm statistics are those of the whole batch."""
    _assert_same_run(cached_run("jit", count, random=True), cached_run("jit", 1, random=True))


@pytest.mark.parametrize("mode", ["jit", "pmap"])
def test_two_runs_are_bit_equal(mode):
    first, second = cached_run(mode, 2, random=True), Run(mode, 2, random=True)
    assert_trees_equal(first.state, second.state)
    assert first.sums == second.sums


@pytest.mark.parametrize("count", [1, 2, 4])
def test_pmap_equals_jit(count):
    _assert_same_run(cached_run("pmap", count), cached_run("jit", 1))


@pytest.mark.parametrize("mode", ["jit", "pmap"])
def test_one_trace_over_different_batches_and_steps(mode):
    assert cached_run(mode, 2, random=True).step.traces == 1


@pytest.mark.parametrize("mode", ["jit", "pmap"])
def test_state_stays_whole_on_every_device(mode):
    for leaf in jax.tree.leaves(cached_run(mode, 2, random=True).state):
        assert leaf.sharding.is_fully_replicated
        assert leaf.sharding.device_set == set(jax.devices()[:2])


def test_pmap_equals_jit_with_uneven_masks_weights_average_and_freezing():
    options = {
        "class_weights": (0.2, 1.0, 3.0, 0.5),
        "ema": True,
        "ema_decay": 0.9,
        "freeze": ("conv1",),
        "skip_nonfinite_updates": True,
    }
    mesh = _mesh(4)
    batch = Batch(
        images=BATCHES[0].images,
        labels=BATCHES[0].labels,
        attributes=BATCHES[0].attributes,
        mask=np.array([1, 1, 1, 0, 0, 0, 1, 1], np.float32),
        ids=BATCHES[0].ids,
    )
    results = []
    for compile_step, model, axis in (
        (compile_train_step, ToyNet(), None),
        (pmap_train_step, ToyNet(bn_axis_name="data"), "data"),
    ):
        state, step = make_training(model, axis_name=axis, **options)
        compiled = compile_step(step, mesh)
        results.append(run(compiled, replicate(state, mesh), [shard_batch(batch, mesh)]))
    (state, sums), (state_pmap, sums_pmap) = results
    assert_trees_close(state_pmap, state, rtol=1e-4, atol=1e-5)
    assert sums_pmap[0] == pytest.approx(sums[0], rel=1e-4)
    assert sums[0]["count"] == 5.0


def test_a_second_trace_is_counted():
    mesh = _mesh(1)
    state, step = make_training()
    step = compile_train_step(step, mesh)
    state, _ = step(replicate(state, mesh), shard_batch(make_batch(8), mesh))
    step(state, shard_batch(make_batch(4), mesh))
    assert step.traces == 2


def test_calls_use_what_was_compiled_ahead():
    """Neither tracing nor a compiler runs between the first call and the last."""
    mesh = _mesh(2)
    state, step = make_training()
    step = compile_train_step(step, mesh)
    evaluate = compile_eval_step(make_eval_step(ToyNet(), TASK, image_size_px=SIZE), mesh)
    state, batch = replicate(state, mesh), shard_batch(BATCHES[0], mesh)
    assert step.compiles_ahead
    step.compile_for(state, batch)
    evaluate.compile_for(variables_for_eval(state), batch)
    compiled: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(lambda event, _, **__: compiled.append(event))
    for _ in range(2):
        state, _ = step(state, batch)
        evaluate(variables_for_eval(state), batch)
    assert [event for event in compiled if "/compile/" in event] == []
    assert (step.traces, evaluate.traces) == (1, 1)


def test_one_evaluation_trace_from_fresh_and_trained_states():
    mesh = _mesh(2)
    state, step = make_training(ema=True, ema_decay=0.9)
    evaluate = compile_eval_step(make_eval_step(ToyNet(), TASK, image_size_px=SIZE), mesh)
    state = replicate(state, mesh)
    batch = shard_batch(BATCHES[0], mesh)
    before = evaluate(variables_for_eval(state), batch)
    state, _ = run(compile_train_step(step, mesh), state, [batch] * 3)
    after = evaluate(variables_for_eval(state), batch)
    assert evaluate.traces == 1
    assert not np.array_equal(before["logits"], after["logits"])


@pytest.mark.parametrize("mode", [compile_train_step, pmap_train_step])
def test_the_old_state_is_given_away_and_the_batch_is_not(mode):
    mesh = _mesh(2)
    axis = "data" if mode is pmap_train_step else None
    state, step = make_training(ToyNet(bn_axis_name=axis), ema=True, ema_decay=0.9, axis_name=axis)
    old, batch = replicate(state, mesh), shard_batch(BATCHES[0], mesh)
    new, _ = mode(step, mesh)(old, batch)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(old))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves((new, batch)))


@pytest.mark.parametrize("count", [1, 4])
def test_evaluation_does_not_depend_on_the_number_of_devices(count):
    state, _ = make_training()
    variables = jax.tree.map(np.asarray, variables_for_eval(state))
    step = make_eval_step(ToyNet(), TASK, image_size_px=SIZE)
    mesh = _mesh(count)
    ours = compile_eval_step(step, mesh)(replicate(variables, mesh), shard_batch(BATCHES[0], mesh))
    theirs = jax.jit(step)(variables, BATCHES[0])
    assert_trees_close(ours, theirs)


def _gather(data: Batch, rows: jax.Array, mask: jax.Array) -> Batch:
    batch = jax.tree.map(lambda column: column[rows], data)
    return Batch(
        images=batch.images, labels=batch.labels, attributes=batch.attributes, mask=mask, ids=batch.ids
    )


@pytest.mark.parametrize("mode", [compile_train_step, pmap_train_step])
def test_resident_data_gives_the_same_bits_as_batches(mode):
    mesh = _mesh(2)
    axis = "data" if mode is pmap_train_step else None
    model, store = ToyNet(bn_axis_name=axis), make_batch(20)
    rows = [np.random.default_rng(i).permutation(20)[:8].astype(np.int32) for i in range(3)]
    mask = np.ones(8, np.float32)

    state, step = make_training(model, axis_name=axis)
    batches = [shard_batch(_gather(store, r, mask), mesh) for r in rows]
    streamed, sums = run(mode(step, mesh), replicate(state, mesh), batches)

    state, step = make_training(model, axis_name=axis, gather=_gather)
    step, data = mode(step, mesh, resident=True), replicate(store, mesh)
    state = replicate(state, mesh)
    for index, r in enumerate(rows):
        state, out = step(state, data, shard_batch(r, mesh), shard_batch(mask, mesh))
        assert float(out["loss_sum"]) == pytest.approx(sums[index]["loss_sum"], rel=1e-6)
    assert_trees_close(state, streamed, rtol=1e-6, atol=1e-7)
    assert step.traces == 1
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(data))


@pytest.mark.parametrize("mode", [compile_train_step, pmap_train_step])
def test_the_loop_needs_no_implicit_transfer(mode):
    mesh = _mesh(2)
    axis = "data" if mode is pmap_train_step else None
    state, step = make_training(ToyNet(bn_axis_name=axis), axis_name=axis)
    step, state = mode(step, mesh), replicate(state, mesh)
    state, _ = step(state, shard_batch(BATCHES[0], mesh))
    with jax.transfer_guard("disallow"):
        for host_batch in BATCHES[1:]:
            state, sums = step(state, shard_batch(host_batch, mesh))
        sums = jax.device_get(sums)
    assert np.isfinite(sums["loss_sum"])


def test_steps_need_only_jax_flax_optax():
    import subprocess
    import sys

    code = (
        "import sys, wbc_jax.train.steps, wbc_jax.train.parallel\n"
        "heavy = {'grain', 'tensorflow_datasets', 'orbax.checkpoint', 'tyro', 'PIL', 'torch', 'matplotlib'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_lowered_program_is_available_for_memory_and_cost():
    mesh = _mesh(1)
    state, step = make_training()
    lowered = compile_train_step(step, mesh).lower(state, make_batch(8))
    assert lowered.compile().memory_analysis() is not None
    assert jnp.ndim(state.step) == 0

"""Evaluation and prediction: exact for every batch size, deterministic, mirror averages."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_training import SIZE, TASK, ToyNet, make_batch

from wbc_jax.train.augment import center
from wbc_jax.train.steps import make_eval_step, make_predict_step

SAMPLES = 23


@pytest.fixture(scope="module")
def variables():
    model = ToyNet(dropout_rate=0.5)
    variables = model.init(jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 3)), train=False)
    keys = iter(jax.random.split(jax.random.key(1), 8))
    stats = jax.tree.map(
        lambda x: jax.random.uniform(next(keys), x.shape, minval=0.5, maxval=1.5), variables["batch_stats"]
    )
    return {"params": variables["params"], "batch_stats": stats}


@pytest.fixture(scope="module")
def oracle(variables):
    """Float64 logits, one image at a time, nothing padded."""
    data = make_batch(SAMPLES)
    model = ToyNet()
    apply = jax.jit(lambda images: model.apply(variables, center(images, SIZE), train=False)[0])
    logits = np.concatenate([apply(data.images[i : i + 1]) for i in range(SAMPLES)]).astype(np.float64)
    log_p = logits - logits.max(axis=1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(axis=1, keepdims=True))
    return data, log_p


def _padded(data, batch_size):
    """Whole batches, the last filled up with masked rows of another image and label."""
    for start in range(0, SAMPLES, batch_size):
        part = jax.tree.map(lambda x, s=start: x[s : s + batch_size], data)
        missing = batch_size - len(part.labels)
        filler = jax.tree.map(lambda x, m=missing: np.repeat(x[:1], m, axis=0), data)
        batch = jax.tree.map(lambda a, b: np.concatenate([a, b]), part, filler)
        mask = (np.arange(batch_size) < batch_size - missing).astype(np.float32)
        yield dataclasses.replace(batch, mask=mask)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 8, 22, 23, 24, 40])
def test_exact_for_every_batch_size(variables, oracle, batch_size):
    data, log_p = oracle
    step = jax.jit(make_eval_step(ToyNet(dropout_rate=0.5), TASK, image_size_px=SIZE))
    totals, probabilities = {"loss_sum": 0.0, "correct_sum": 0.0, "count": 0.0}, []
    for batch in _padded(data, batch_size):
        out = step(variables, batch)
        totals = {name: totals[name] + float(out[name]) for name in totals}
        probabilities.append(np.asarray(out["probabilities"])[batch.mask > 0])
    rows = np.arange(SAMPLES)
    assert totals["count"] == SAMPLES
    assert totals["correct_sum"] == (log_p.argmax(axis=1) == data.labels).sum()
    assert totals["loss_sum"] == pytest.approx(-log_p[rows, data.labels].sum(), rel=1e-5)
    np.testing.assert_allclose(np.concatenate(probabilities), np.exp(log_p), atol=1e-6)


def test_prediction_is_the_evaluations_probabilities(variables, oracle):
    data, log_p = oracle
    predict = jax.jit(make_predict_step(ToyNet(dropout_rate=0.5), image_size_px=SIZE))
    probabilities, attributes = predict(variables, data.images)
    assert attributes is None
    assert probabilities.dtype == jnp.float32
    np.testing.assert_allclose(probabilities, np.exp(log_p), atol=1e-6)


def test_mirror_average_is_the_mean_of_four_predictions(variables):
    images = make_batch(3).images
    images[:, : SIZE // 2] //= 2  # top and bottom, left and right differ
    images[:, :, : SIZE // 3] //= 3
    plain = make_predict_step(ToyNet(), image_size_px=SIZE)
    views = [images, images[:, ::-1], images[:, :, ::-1], images[:, ::-1, ::-1]]
    each = np.stack([plain(variables, jnp.asarray(view.copy())).probabilities for view in views])
    averaged = make_predict_step(ToyNet(), image_size_px=SIZE, flip_average=True)
    found = averaged(variables, jnp.asarray(images)).probabilities
    np.testing.assert_allclose(found, each.mean(axis=0), atol=1e-6)
    assert np.ptp(each, axis=0).max() > 1e-3


@pytest.mark.parametrize("flip_average", [False, True])
def test_logits_and_probabilities_agree_in_float32_also_from_bfloat16(variables, flip_average):
    model = ToyNet(dtype=jnp.bfloat16)
    step = make_eval_step(model, TASK, image_size_px=SIZE, flip_average=flip_average)
    out = jax.jit(step)(variables, make_batch(4))
    assert {value.dtype for value in out.values()} == {jnp.dtype("float32")}
    np.testing.assert_allclose(jax.nn.softmax(out["logits"]), out["probabilities"], atol=1e-6)
    np.testing.assert_allclose(out["probabilities"].sum(axis=1), 1.0, rtol=1e-5)


def test_confident_mirror_averages_keep_finite_logits(variables):
    steep = jax.tree.map(lambda x: x, variables)
    steep["params"]["head"] = jax.tree.map(lambda x: x * 1e5, variables["params"]["head"])
    step = make_eval_step(ToyNet(), TASK, image_size_px=SIZE, flip_average=True)
    out = jax.jit(step)(steep, make_batch(4))
    assert np.isfinite(out["logits"]).all()
    assert np.isfinite(float(out["loss_sum"]))

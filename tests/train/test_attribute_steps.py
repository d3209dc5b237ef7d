"""Steps of a network that predicts attributes: learning from part of the labels, masked sums, mirror averages."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from toy_training import SIZE, TASK, make_batch, no_augmentation, run

from wbc_jax.config import OptimConfig
from wbc_jax.models.attribute_groups import GROUP_SIZES, group_softmax
from wbc_jax.train.augment import center
from wbc_jax.train.optim import make_optimizer
from wbc_jax.train.state import create_state
from wbc_jax.train.steps import make_eval_step, make_train_step


class AttributeNet(nn.Module):
    """Pixels, one hidden layer, both heads."""

    num_classes: int = TASK.num_classes

    @nn.compact
    def __call__(self, images, *, train: bool = False, use_running_average: bool | None = None):
        features = nn.relu(nn.Dense(32, name="hidden")(images.reshape(images.shape[0], -1)))
        attributes = nn.Dense(31, name="attribute_heads")(features)
        return nn.Dense(self.num_classes, name="logits")(features), {"attribute_logits": attributes}


def _batch(size: int = 16, *, share: float = 1.0):
    """Attributes that follow from the class, so that colour tells them; some of them hidden."""
    batch = make_batch(size)
    values = np.stack([batch.labels % n for n in GROUP_SIZES], axis=-1).astype(np.int32)
    values[np.random.default_rng(5).random(values.shape) >= share] = -1
    return dataclasses.replace(batch, attributes=values)


def test_attributes_are_learnt_from_the_annotated_part() -> None:
    model = AttributeNet()
    tx = make_optimizer(
        OptimConfig(name="adam", learning_rate=3e-3, schedule="constant"), steps_per_epoch=1, epochs=1
    )
    state = create_state(model, tx, jax.random.key(0), SIZE)
    step = jax.jit(make_train_step(model, tx, TASK, no_augmentation, attribute_share=0.8))
    part, whole = _batch(share=0.5), _batch()
    state, history = run(step, state, [part] * 60)
    assert history[0]["attribute_count"] == (part.attributes >= 0).sum()
    assert history[-1]["attribute_correct_sum"] == history[-1]["attribute_count"]
    assert history[-1]["loss_sum"] < 0.1 * history[0]["loss_sum"]
    evaluate = make_eval_step(model, TASK, image_size_px=SIZE)
    out = jax.jit(evaluate)({"params": state.params, "batch_stats": {}}, whole)
    assert float(out["attribute_correct_sum"]) > 0.5 * whole.attributes.size


@pytest.mark.parametrize("flip_average", [False, True])
def test_evaluation_returns_probabilities_and_masked_sums(flip_average: bool) -> None:
    model, batch = AttributeNet(), _batch(share=0.6)
    batch = dataclasses.replace(batch, mask=np.array([1] * 13 + [0] * 3, np.float32))
    variables = model.init(jax.random.key(1), jnp.zeros((1, SIZE, SIZE, 3)), train=False)
    step = jax.jit(make_eval_step(model, TASK, image_size_px=SIZE, flip_average=flip_average))
    out = step(variables, batch)
    images = center(jnp.asarray(batch.images), SIZE)
    views = [images, images[:, ::-1], images[:, :, ::-1], images[:, ::-1, ::-1]]
    logits = [model.apply(variables, view)[1]["attribute_logits"] for view in views]
    expected = np.mean([group_softmax(x) for x in (logits if flip_average else logits[:1])], axis=0)
    np.testing.assert_allclose(out["attribute_probabilities"], expected, rtol=1e-4, atol=1e-6)
    hits = count = start = 0
    for index, size in enumerate(GROUP_SIZES):
        predicted = expected[:13, start : start + size].argmax(axis=1)
        truth = batch.attributes[:13, index]
        hits, count, start = (
            hits + int((predicted == truth).sum()),
            count + int((truth >= 0).sum()),
            start + size,
        )
    assert float(out["attribute_correct_sum"]) == hits
    assert float(out["attribute_count"]) == count

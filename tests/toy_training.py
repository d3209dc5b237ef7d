"""A small network of the package's contract and everything around it, for tests of steps and loops."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from wbc_jax.catalog import Task, class_task
from wbc_jax.config import OptimConfig
from wbc_jax.data.batch import Batch
from wbc_jax.train.freeze import partition
from wbc_jax.train.optim import make_optimizer
from wbc_jax.train.state import TrainState, create_state
from wbc_jax.train.steps import TrainStep, make_train_step

SIZE = 12
TASK: Task = class_task("toy", ("eosinophil", "lymphocyte", "monocyte", "neutrophil"))


class ToyNet(nn.Module):
    """Two convolutions, global pooling, dropout, head: `(logits, endpoints)`."""

    num_classes: int = TASK.num_classes
    dtype: Any = jnp.float32
    bn_axis_name: str | None = None
    dropout_rate: float = 0.0
    batch_norm: bool = True

    @nn.compact
    def __call__(self, images, *, train: bool = False, use_running_average: bool | None = None):
        average = not train if use_running_average is None else use_running_average
        x, endpoints = images.astype(self.dtype), {}
        for index, width in ((1, 8), (2, 16)):
            x = nn.Conv(width, (3, 3), strides=2, dtype=self.dtype, name=f"conv{index}")(x)
            if self.batch_norm:
                norm = nn.BatchNorm(
                    use_running_average=average,
                    momentum=0.9,
                    dtype=self.dtype,
                    axis_name=self.bn_axis_name,
                    name=f"bn{index}",
                )
                with jax.numpy_dtype_promotion("standard"):  # its statistics are float32, by design
                    x = norm(x)
            x = endpoints[f"stage{index}"] = nn.relu(x)
        x = jnp.mean(x, axis=(1, 2))
        x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
        return nn.Dense(self.num_classes, dtype=self.dtype, name="head")(x), endpoints


def make_batch(size: int = 8, seed: int = 0, *, image_size_px: int = SIZE) -> Batch:
    """Classes that differ by colour, so that a network can fit them; numpy arrays."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, TASK.num_classes, size).astype(np.int32)
    colours = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200], [180, 180, 60]])[labels]
    noise = random.normal(0, 40, (size, image_size_px, image_size_px, 3))
    return Batch(
        images=np.clip(colours[:, None, None] + noise, 0, 255).astype(np.uint8),
        labels=labels,
        attributes=np.full((size, 11), -1, np.int32),
        mask=np.ones(size, np.float32),
        ids=np.arange(size, dtype=np.int32),
    )


def no_augmentation(key: jax.Array, images: jax.Array) -> jax.Array:
    """uint8 -> float32 about [-2, 2], nothing random."""
    del key
    return images.astype(jnp.float32) / 64.0 - 2.0


def noise_augmentation(key: jax.Array, images: jax.Array) -> jax.Array:
    return no_augmentation(key, images) + jax.random.normal(key, images.shape) * 0.1


def make_training(
    model: ToyNet | None = None,
    optim: OptimConfig | None = None,
    *,
    augment=no_augmentation,
    ema: bool = False,
    freeze: tuple[str, ...] = (),
    **options: Any,
) -> tuple[TrainState, TrainStep]:
    """A fresh state and the pure step that advances it."""
    model = ToyNet() if model is None else model
    optim = OptimConfig(name="sgd", learning_rate=0.05, schedule="constant") if optim is None else optim
    tx = make_optimizer(optim, steps_per_epoch=10, epochs=2)
    params, batch_stats = jax.tree.map(jnp.array, _initial_variables(model.batch_norm))
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=batch_stats,
        opt_state=tx.init(partition(params, freeze)[0]),
        ema_params=jax.tree.map(jnp.array, params) if ema else None,
        ema_batch_stats=jax.tree.map(jnp.array, batch_stats) if ema else None,
    )
    return state, make_train_step(model, tx, TASK, augment, freeze=freeze, **options)


@cache
def _initial_variables(batch_norm: bool) -> tuple[Any, Any]:
    """Drawn once: compiling the initialisers takes longer than a test."""
    tx = make_optimizer(OptimConfig(), steps_per_epoch=1, epochs=1)
    state = create_state(ToyNet(batch_norm=batch_norm), tx, jax.random.key(0), SIZE)
    return jax.tree.map(np.asarray, (state.params, state.batch_stats))


def run(step, state: TrainState, batches: list) -> tuple[TrainState, list[dict[str, float]]]:
    """The state after all batches, and the sums of each step."""
    history = []
    for batch in batches:
        state, sums = step(state, batch)
        history.append({name: float(value) for name, value in sums.items()})
    return state, history


def assert_trees_equal(a: Any, b: Any) -> None:
    """Bit for bit, structure included."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def assert_trees_close(a: Any, b: Any, *, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=rtol, atol=atol), a, b)

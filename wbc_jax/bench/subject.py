"""The package's own steps, made ready to be timed on one device: the same code that a run trains with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from wbc_jax.bench.compiled import compile_step
from wbc_jax.catalog import ATTRIBUTES, Task, class_task
from wbc_jax.config import OptimConfig
from wbc_jax.data.batch import Batch
from wbc_jax.models import create_model, model_fields
from wbc_jax.models.daffnet import DAFFNETS
from wbc_jax.models.lowerings import Form
from wbc_jax.models.morphology import MORPHOLOGY_PREDICTORS
from wbc_jax.train.augment import center
from wbc_jax.train.optim import make_optimizer
from wbc_jax.train.parallel import compile_eval_step, compile_train_step, data_mesh, replicate, shard_batch
from wbc_jax.train.state import TrainState, create_state
from wbc_jax.train.steps import make_predict_step, make_train_step

LEARNING_RATE = 1e-4
"""Small, so that losses of two implementations stay comparable over the few steps of a measurement."""
ATTRIBUTE_SHARE = 0.8
"""Weight of the attributes' loss where a network predicts them (DAFFNet, Eq. 1)."""


@dataclass(frozen=True)
class Case:
    """What is run: network, size of the work, activation type.

    Attributes:
        model_name: one of `list_models()`.
        mode: train or infer.
        batch_size: images per step.
        image_size_px: side of the network's input; the uint8 images of a synthetic batch have it too.
        num_classes: outputs.
        dtype: type of activations.
        device_count: devices that share the batch.
    """

    model_name: str
    mode: Literal["train", "infer"]
    batch_size: int
    image_size_px: int
    num_classes: int
    dtype: Any
    device_count: int = 1

    @cached_property
    def model(self) -> Any:
        """The network, every branch trained, without dropout: the loss must not depend on whose random numbers are
        drawn."""
        known = model_fields(self.model_name)
        wanted = {"dropout_rate": 0.0, "freeze_map": False}
        extra = {name: value for name, value in wanted.items() if name in known}
        return create_model(self.model_name, num_classes=self.num_classes, dtype=self.dtype, **extra)

    @cached_property
    def attribute_share(self) -> float:
        """Of the loss: `ATTRIBUTE_SHARE` for a network that predicts attributes, 0 for others."""
        predicts = self.model_name in DAFFNETS or self.model_name in MORPHOLOGY_PREDICTORS
        return ATTRIBUTE_SHARE if predicts else 0.0

    @property
    def task(self) -> Task:
        return class_task("benchmark", tuple(f"class {index}" for index in range(self.num_classes)))

    @cached_property
    def tx(self) -> Any:
        optim = OptimConfig(name="radam", learning_rate=LEARNING_RATE, schedule="constant")
        return make_optimizer(optim, steps_per_epoch=1, epochs=1)

    @cached_property
    def mesh(self) -> Any:
        return data_mesh(jax.devices()[: self.device_count])

    def batch(self) -> Batch:
        """A fixed random batch on the host; the same numbers for the same sizes."""
        rng = np.random.default_rng(0)
        size = self.image_size_px
        return Batch(
            images=rng.integers(0, 256, (self.batch_size, size, size, 3), np.uint8),
            labels=rng.integers(0, self.num_classes, self.batch_size, np.int32),
            attributes=np.stack(
                [rng.integers(0, len(a.values), self.batch_size, np.int32) for a in ATTRIBUTES], axis=1
            ),
            mask=np.ones(self.batch_size, np.float32),
            ids=np.arange(self.batch_size, dtype=np.int32),
        )

    @cached_property
    def initial(self) -> TrainState:
        """Random parameters, on the host; the same in every process."""
        return jax.device_get(create_state(self.model, self.tx, jax.random.key(0), self.image_size_px))

    def state(self) -> TrainState:
        """A copy of `initial` on the device, to be donated."""
        return replicate(jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), self.initial), self.mesh)


class TrainSubject:
    """A training step with its state; `run(steps)` goes on from where it stopped.

    Attributes:
        costs: of compiling.
        first_loss: mean loss of the first step that was run; None before.
        last_loss: that of the last one.
    """

    def __init__(
        self,
        case: Case,
        *,
        augment: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
        gather: Any = None,
        sources: Iterator[tuple[Any, ...]] | None = None,
        steps_per_call: int = 1,
        chosen: Mapping[str, Form] | None = None,
    ) -> None:
        """
        Args:
            case: what to run.
            augment: as `make_train_step` takes it; None: the centre, normalised, nothing random.
            gather: as `make_train_step` takes it; `sources` then yields `(data, rows, mask)`.
            sources: the step's arguments after the state, one for each step; None: one fixed batch on the device.
            steps_per_call: training steps in one compiled program, on the same batch; `run` then counts programs.
            chosen: kind of operation -> form, where it is not the backend's own choice.
        """
        size = case.image_size_px
        step = make_train_step(
            case.model,
            case.tx,
            case.task,
            augment or (lambda key, images: center(images, size)),
            attribute_share=case.attribute_share,
            gather=gather,
        )
        if steps_per_call > 1:
            step = _repeated(step, steps_per_call)
        self._state = case.state()
        self._sources = _forever((shard_batch(case.batch(), case.mesh),)) if sources is None else sources
        self._next = next(self._sources)
        self._step, self.costs = compile_step(
            lambda: compile_train_step(step, case.mesh, resident=gather is not None),
            (self._state, *self._next),
            chosen,
        )
        self.first_loss: float | None = None
        self._sums: Any = None

    def run(self, steps: int) -> None:
        """Chains that many donated steps and waits for the last."""
        for _ in range(steps):
            self._state, self._sums = self._step(self._state, *self._next)
            if self.first_loss is None:
                self.first_loss = self.last_loss
            self._next = next(self._sources)
        jax.block_until_ready((self._state, self._sums))

    @property
    def last_loss(self) -> float:
        sums = jax.device_get(self._sums)
        return float(sums["loss_sum"] / sums["count"])


class InferSubject:
    """Class probabilities of one fixed batch.

    Attributes:
        costs: of compiling.
    """

    def __init__(self, case: Case, *, chosen: Mapping[str, Form] | None = None) -> None:
        """
        Args:
            case: what to run.
            chosen: kind of operation -> form, where it is not the backend's own choice.
        """
        predict = make_predict_step(case.model, image_size_px=case.image_size_px)
        state = case.state()
        self._variables = {"params": state.params, "batch_stats": state.batch_stats}
        self._images = shard_batch(case.batch().images, case.mesh)
        self._step, self.costs = compile_step(
            lambda: compile_eval_step(predict, case.mesh), (self._variables, self._images), chosen
        )
        self._one_by_one = jax.default_backend() == "cpu"

    def run(self, steps: int) -> None:
        """Runs that many steps. On a CPU each is awaited: independent of each other, they could overlap."""
        results = []
        for _ in range(steps):
            results.append(self._step(self._variables, self._images))
            if self._one_by_one:
                jax.block_until_ready(results.pop())
        jax.block_until_ready(results)

    def probabilities(self) -> np.ndarray:
        """float32 `(B, K)`."""
        return np.asarray(self._step(self._variables, self._images).probabilities)


def _repeated(step: Any, count: int) -> Any:
    """`count` steps on the same arguments as one program; the sums are those of the last."""

    def unrolled(state: TrainState, *source: Any) -> Any:
        sums = None
        for _ in range(count):
            state, sums = step(state, *source)
        return state, sums

    def scanned(state: TrainState, *source: Any) -> Any:
        state, sums = jax.lax.scan(lambda state, _: step(state, *source), state, None, length=count)
        return state, jax.tree.map(lambda values: values[-1], sums)

    # XLA:CPU runs convolutions inside of loops slowly.
    return unrolled if jax.default_backend() == "cpu" else scanned


def _forever(item: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    while True:
        yield item

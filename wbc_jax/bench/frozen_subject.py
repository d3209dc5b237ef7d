"""DAFFNet's training step with its attribute predictor in four forms, from the same weights on the same batch."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wbc_jax.bench.compiled import compile_step
from wbc_jax.bench.subject import ATTRIBUTE_SHARE, Case
from wbc_jax.models import create_model
from wbc_jax.models.fold import fold_batch_norm
from wbc_jax.train.augment import center
from wbc_jax.train.freeze import partition
from wbc_jax.train.known_attributes import lookup, make_view_step
from wbc_jax.train.parallel import compile_train_step, replicate, shard_batch
from wbc_jax.train.state import TrainState
from wbc_jax.train.steps import make_train_step


class Forms:
    """What the four forms share.

    joint: the predictor is trained along, by the attributes' loss. frozen: it runs as in evaluation and is not
    differentiated. folded: besides, its BatchNorms are merged into its convolutions. cached: its output is looked up.
    """

    def __init__(self, model_name: str, batch_size: int, image_size_px: int, dtype: Any) -> None:
        self._case = Case(
            model_name=model_name,
            mode="train",
            batch_size=batch_size,
            image_size_px=image_size_px,
            num_classes=5,
            dtype=dtype,
        )

    @property
    def precision(self) -> str:
        """Type of activations."""
        return np.dtype(self._case.dtype).name

    def subject(self, form: str) -> FormSubject:
        """The step of one form, compiled, with a state of its own."""
        freeze = () if form == "joint" else ("map",)
        variables = self._folded() if form == "folded" else self._variables
        options: dict[str, Any] = {"attribute_share": ATTRIBUTE_SHARE if form == "joint" else 0.0}
        if form == "cached":
            options["known_attributes"] = lookup(self._known)
        case, size = self._case, self._case.image_size_px
        model = self._model(freeze_map=form != "joint", fold_map=form == "folded")
        step = make_train_step(
            model, case.tx, case.task, lambda key, images: center(images, size), freeze=freeze, **options
        )
        params, statistics = jax.tree.map(
            lambda leaf: jnp.array(leaf, copy=True), (variables["params"], variables["batch_stats"])
        )
        state = TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats=statistics,
            opt_state=case.tx.init(partition(params, freeze)[0]),
            ema_params=None,
            ema_batch_stats=None,
        )
        compiled = compile_train_step(step, case.mesh)
        return FormSubject(compiled, replicate(state, case.mesh), shard_batch(case.batch(), case.mesh))

    def _model(self, **fields: Any) -> Any:
        case = self._case
        return create_model(case.model_name, num_classes=case.num_classes, dtype=case.dtype, **fields)

    @cached_property
    def _variables(self) -> dict[str, Any]:
        state = self._case.initial
        return {"params": state.params, "batch_stats": state.batch_stats}

    def _folded(self) -> dict[str, Any]:
        whole = self._variables
        part = fold_batch_norm({kind: whole[kind]["map"] for kind in ("params", "batch_stats")})
        statistics = {name: tree for name, tree in whole["batch_stats"].items() if name != "map"}
        return {"params": {**whole["params"], "map": part["params"]}, "batch_stats": statistics}

    @cached_property
    def _known(self) -> np.ndarray:
        """The predictor's output for the batch, by id: float32 `(B, 1, 31)`."""
        views = jax.jit(make_view_step(self._model(), image_size_px=self._case.image_size_px, mirrored=False))
        return np.asarray(views(self._variables, self._case.batch().images))


class FormSubject:
    """A compiled step with its state; `run(steps)` goes on from where it stopped.

    Attributes:
        costs: of compiling.
        first_loss: mean loss of the first step that was run; None before.
    """

    def __init__(self, step: Any, state: TrainState, batch: Any) -> None:
        self._step, self.costs = compile_step(lambda: step, (state, batch))
        self._state, self._batch = state, batch
        self._sums: Any = None
        self.first_loss: float | None = None

    def run(self, steps: int) -> None:
        """Chains that many donated steps and waits for the last."""
        for _ in range(steps):
            self._state, self._sums = self._step(self._state, self._batch)
            if self.first_loss is None:
                self.first_loss = self.last_loss
        jax.block_until_ready((self._state, self._sums))

    @property
    def last_loss(self) -> float:
        """Mean loss of the last step that was run."""
        sums = jax.device_get(self._sums)
        return float(sums["loss_sum"] / sums["count"])

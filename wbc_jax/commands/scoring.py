"""What a network says of a set of samples, batch by batch, and the scores that the loop validates with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from wbc_jax.config import Config
from wbc_jax.data.experiment import Experiment, Samples
from wbc_jax.data.stream import eval_stream
from wbc_jax.evaluate import confusion
from wbc_jax.train.state import TrainState, variables_for_eval


@dataclass(frozen=True, kw_only=True)
class SamplePredictions:
    """Predictions of n samples, in their order.

    Attributes:
        probabilities: float32 `(n, K)`.
        attribute_probabilities: float32 `(n, 31)`, within each attribute; None for a network without attributes.
        loss: mean class cross entropy.
        attribute_accuracy: share of annotated pairs of sample and attribute that are right; None where the network
            predicts, or the samples have, no attributes.
    """

    probabilities: np.ndarray
    attribute_probabilities: np.ndarray | None
    loss: float
    attribute_accuracy: float | None


def predict_samples(
    eval_step: Callable[..., Any],
    variables: Any,
    samples: Samples,
    batch_size: int,
    *,
    sharding: jax.sharding.Sharding | None = None,
) -> SamplePredictions:
    """Applies a step from `make_eval_step` to every sample; exact for any batch size and number of processes.

    Args:
        eval_step: compiled.
        variables: where `eval_step` expects them.
        samples: what to predict; the same on every process.
        batch_size: images per step, over all processes; see `eval_stream`.
        sharding: how a batch lies on the devices; None: on the default device.
    """
    kept: dict[str, list[np.ndarray]] = {"probabilities": [], "attribute_probabilities": []}
    sums = dict.fromkeys(("count", "loss_sum", "attribute_correct_sum", "attribute_count"), 0.0)
    batches = eval_stream(
        samples.store,
        samples.rows,
        samples.labels,
        samples.attributes,
        batch_size,
        sharding=sharding,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    for on_devices in _one_ahead(eval_step(variables, batch) for batch in batches):
        out = jax.device_get(on_devices)
        for name, arrays in kept.items():
            if name in out:
                arrays.append(out[name][: int(out["count"])])
        for name in sums:
            sums[name] += float(out.get(name, 0.0))
    attributes, annotated = kept["attribute_probabilities"], sums["attribute_count"]
    return SamplePredictions(
        probabilities=np.concatenate(kept["probabilities"]),
        attribute_probabilities=np.concatenate(attributes) if attributes else None,
        loss=sums["loss_sum"] / max(sums["count"], 1.0),
        attribute_accuracy=sums["attribute_correct_sum"] / annotated if annotated else None,
    )


def _one_ahead(results: Iterator[Any]) -> Iterator[Any]:
    """Each of `results` once the next is under way: the devices compute while the host gathers and reads back."""
    waiting = next(results, None)
    for result in results:
        yield waiting
        waiting = result
    if waiting is not None:
        yield waiting


def validation(
    config: Config, experiment: Experiment, eval_step: Callable[..., Any], sharding: jax.sharding.Sharding
) -> Callable[[TrainState], dict[str, float]]:
    """Scores of a state on the validation set: loss, class scores and, where there are any, attributes."""
    samples, num_classes = experiment.val, experiment.task.num_classes

    def validate(state: TrainState) -> dict[str, float]:
        predicted = predict_samples(
            eval_step, variables_for_eval(state), samples, config.eval.batch_size, sharding=sharding
        )
        classes = predicted.probabilities.argmax(axis=1)
        scores = confusion.scores(confusion.confusion_counts(samples.labels, classes, num_classes))
        row = {name: float(scores[name]) for name in ("accuracy", "balanced_accuracy", "macro_f1")}
        if predicted.attribute_accuracy is not None:
            row["attribute_accuracy"] = predicted.attribute_accuracy
        return {"loss": predicted.loss, **row}

    return validate

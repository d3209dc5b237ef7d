"""The end of a run: the best state scored on the test set, written down, drawn, and told to the user."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from wbc_jax.commands.results import score_samples, training_baselines
from wbc_jax.commands.run import METRICS_FILE
from wbc_jax.commands.scoring import SamplePredictions
from wbc_jax.config import Config
from wbc_jax.data.experiment import Experiment
from wbc_jax.evaluate.figures import training_figure
from wbc_jax.runtime.checkpoints import load_variables
from wbc_jax.runtime.goodput import Goodput
from wbc_jax.runtime.json_files import write_json
from wbc_jax.runtime.logs import MetricsLog
from wbc_jax.train.loop import LoopOutcome


def conclude(
    config: Config,
    experiment: Experiment,
    predict_samples: Callable[..., SamplePredictions],
    path: Path,
    outcome: LoopOutcome,
    timer: Goodput,
) -> None:
    """Scores the best state on the test set and writes metrics.json last: a run that has it is complete."""
    variables = load_variables(path / "checkpoints")
    history = read_history(path)
    metrics: dict[str, Any] = {
        "best_step": outcome.best_step,
        "steps": outcome.step,
        "reason": outcome.reason,
    }
    with timer.measure("evaluate"):
        for name in ("val", "test"):
            samples = experiment.part(name)
            if not len(samples.rows):
                continue
            results = score_samples(
                lambda s: predict_samples(variables, s, config.eval.batch_size),
                samples,
                experiment.task.class_names,
                name=name,
                directory=path,
                bootstrap_samples=config.eval.bootstrap_samples,
                baselines=lambda: training_baselines(
                    experiment.task, experiment.store, experiment.split.train
                ),
            )
            metrics |= results.to_json(name)
    training_figure(history, path / "figures" / "training.png")
    write_json(path / METRICS_FILE, metrics)
    results.show("test")
    print(timer.summary_line())
    print(f"run directory: {path}")
    print(f"next: wbc-jax explain {path} IMAGES --out maps     (where the network looks)")
    print(f"      wbc-jax predict {path} IMAGES --out predictions.csv")


def read_history(path: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl."""
    with MetricsLog(path / "metrics.jsonl") as log:
        return log.rows()

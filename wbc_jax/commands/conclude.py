"""The end of a run: the best state scored on the test set, written down, drawn, and told to the user."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from wbc_jax.commands.run import METRICS_FILE
from wbc_jax.commands.scoring import SamplePredictions
from wbc_jax.config import Config
from wbc_jax.data.experiment import Experiment, Samples
from wbc_jax.evaluate.figures import draw_all, training_figure
from wbc_jax.evaluate.predictions import columns, prediction_rows, write_predictions
from wbc_jax.evaluate.report import Evaluation, evaluate_predictions
from wbc_jax.evaluate.tables import class_table, overall_table, write_class_csv
from wbc_jax.runtime.checkpoints import load_variables
from wbc_jax.runtime.goodput import Goodput
from wbc_jax.runtime.json_files import write_json
from wbc_jax.runtime.logs import MetricsLog
from wbc_jax.train.loop import LoopOutcome


def score_samples(
    predict: Callable[[Samples], Any],
    samples: Samples,
    class_names: tuple[str, ...],
    *,
    name: str,
    directory: Path,
    bootstrap_samples: int,
) -> Evaluation:
    """Scores one set of samples and writes its predictions file, figures and class table.

    Args:
        predict: samples -> probabilities `(n, K)`.
        samples: what to score; at least one.
        class_names: the K classes.
        name: stem of the files, such as `test`.
        directory: gets `predictions/` and `figures/`.
        bootstrap_samples: resamples behind the intervals; 0: none.
    """
    probabilities = predict(samples)
    evaluation = evaluate_predictions(
        samples.labels, probabilities, class_names, bootstrap_samples=bootstrap_samples
    )
    rows = prediction_rows(samples.ids(), probabilities, class_names, samples.labels)
    write_predictions(directory / "predictions" / f"{name}.csv", rows, columns(class_names, labelled=True))
    draw_all(evaluation, directory / "figures", name)
    write_class_csv(evaluation, directory / "figures" / f"classes_{name}.csv")
    return evaluation


def metrics_json(evaluation: Evaluation, name: str) -> dict[str, Any]:
    """Flat `test.accuracy`, … for scripts, and everything else under `test`."""
    flat = {f"{name}.{score}": value for score, value in evaluation.overall.items()}
    return {**flat, name: evaluation.to_json()}


def show(evaluation: Evaluation, title: str) -> None:
    """Prints the overall and the class table."""
    console = Console()
    console.print(overall_table(evaluation, title))
    console.print(class_table(evaluation))


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
            evaluation = score_samples(
                lambda s: predict_samples(variables, s, config.eval.batch_size).probabilities,
                samples,
                experiment.task.class_names,
                name=name,
                directory=path,
                bootstrap_samples=config.eval.bootstrap_samples,
            )
            metrics |= metrics_json(evaluation, name)
    training_figure(history, path / "figures" / "training.png")
    write_json(path / METRICS_FILE, metrics)
    show(evaluation, "test")
    print(timer.summary_line())
    print(f"run directory: {path}")
    print(f"next: wbc-jax explain {path} IMAGES --out maps     (where the network looks)")
    print(f"      wbc-jax predict {path} IMAGES --out predictions.csv")


def read_history(path: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl."""
    with MetricsLog(path / "metrics.jsonl") as log:
        return log.rows()

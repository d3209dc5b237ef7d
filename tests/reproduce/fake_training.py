"""Training that takes no time: run directories with made-up predictions, and what the runs were asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from wbc_jax.catalog import ATTRIBUTES
from wbc_jax.commands.run import METRICS_FILE, write_card
from wbc_jax.commands.train import RunRequest
from wbc_jax.config import Config
from wbc_jax.config_json import digest, to_json
from wbc_jax.data.experiment import load_experiment
from wbc_jax.evaluate.attribute_report import evaluate_attributes
from wbc_jax.evaluate.predictions import prediction_rows, write_predictions
from wbc_jax.evaluate.report import evaluate_predictions
from wbc_jax.models.attribute_groups import GROUP_SLICES
from wbc_jax.runtime.json_files import write_json
from wbc_jax.runtime.logs import MetricsLog
from wbc_jax.runtime.rundir import open_run_dir


class FakeTraining:
    """Stands for `train`; remembers the configs it was called with."""

    def __init__(self) -> None:
        self.configs: list[Config] = []
        self.exit_code = 0

    def __call__(self, request: RunRequest) -> int:
        assert request.run_dir is not None
        self.configs.append(request.config)
        if self.exit_code:
            return self.exit_code
        experiment = load_experiment(request.config.data)
        with open_run_dir(request.run_dir) as run_dir:
            _write(request.config, experiment, run_dir.path)
            run_dir.set_state("finished", step=1)
        return 0


def _write(config: Config, experiment: Any, path: Path) -> None:
    """What `wbc-jax train` leaves, of a network that is right in about seven of ten images."""
    random = np.random.default_rng(int(digest(config)[:8], 16))
    samples, classes = experiment.test, experiment.task.class_names
    right = random.uniform(size=len(samples.labels)) < 0.7
    said = np.where(right, samples.labels, random.integers(0, len(classes), len(samples.labels)))
    probabilities = 0.1 + np.eye(len(classes))[said] + 0.1 * random.uniform(size=(len(said), len(classes)))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    evaluation = evaluate_predictions(samples.labels, probabilities, classes, bootstrap_samples=50)
    details = evaluation.to_json()
    if config.model.name.startswith("map"):
        details["attributes"] = _attributes(random, samples.labels)
    rows = prediction_rows(samples.ids(), probabilities, classes, samples.labels)
    write_predictions(path / "predictions" / "test.csv", rows)
    (path / "config.json").write_text(to_json(config))
    write_card(path, config, experiment.task, 1)
    with MetricsLog(path / "metrics.jsonl") as log:
        for epoch in (1, 2):
            log.append(
                {"step": epoch, "epoch": epoch, "epoch.accuracy": 0.4 * epoch, "val.accuracy": 0.3 * epoch}
            )
    write_json(path / METRICS_FILE, {"test.accuracy": evaluation.overall["accuracy"], "test": details})


def _attributes(random: np.random.Generator, labels: np.ndarray) -> dict[str, Any]:
    truth = np.stack([random.integers(0, len(a.values), len(labels)) for a in ATTRIBUTES], axis=1)
    probabilities = random.uniform(size=(len(labels), GROUP_SLICES[-1].stop)).astype(np.float32)
    for part in GROUP_SLICES:
        probabilities[:, part] /= probabilities[:, part].sum(axis=1, keepdims=True)
    return evaluate_attributes(truth, probabilities, labels, None, bootstrap_samples=20).to_json()

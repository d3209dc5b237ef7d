"""`wbc-jax probe`: the files it leaves, the start weights, and what it refuses."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from wbc_jax.cli import main
from wbc_jax.commands.run import LoadedRun
from wbc_jax.commands.scoring import predict_samples
from wbc_jax.commands.weights import load_weights
from wbc_jax.data.experiment import load_experiment
from wbc_jax.errors import EXIT_OK, EXIT_USAGE
from wbc_jax.train.steps import make_eval_step
from wbc_jax.weights import load_variables


@pytest.fixture(scope="module")
def out(run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("probe")
    sizes = ["--learning-rates", "0.03", "1e-5", "--weight-decays", "0", "--seeds", "2", "--epochs", "20"]
    assert main(["probe", str(run_dir), *sizes, "--out", str(folder), "--select", "loss"]) == EXIT_OK
    return folder


def test_table_has_a_row_for_each_head_and_the_summary_names_the_best(out: Path) -> None:
    rows = list(csv.DictReader((out / "probe.csv").read_text().splitlines()))
    assert [(float(r["learning_rate"]), int(r["seed"])) for r in rows] == [
        (0.03, 0), (0.03, 1), (1e-5, 0), (1e-5, 1)
    ]  # fmt: skip
    summary = json.loads((out / "probe.json").read_text())
    losses = [float(row["val_loss"]) for row in rows]
    assert summary["best"]["val_loss"] == pytest.approx(min(losses))
    assert summary["images"] == {"train": 12, "val": 6, "test": 15}
    assert summary["views"] == 4
    assert summary["heads"] == 4


def test_start_weights_are_the_run_with_the_best_head(out: Path, run: LoadedRun) -> None:
    """The network from the file scores the test images as the summary says."""
    start = load_variables(out / "start.safetensors")
    for part in ("conv1", "layer1_0"):
        jax.tree.map(np.testing.assert_array_equal, start["params"][part], run.variables["params"][part])
    loaded, lines = load_weights(
        run.config.model.__class__(name="resnet_tiny", pretrained=str(out / "start.safetensors")),
        run.variables,
    )
    assert "new head" not in lines[0]
    step = jax.jit(make_eval_step(run.model, run.task, image_size_px=run.config.data.image_size_px))
    experiment = load_experiment(run.config.data)
    predicted = predict_samples(step, loaded, experiment.test, 4)
    told = json.loads((out / "probe.json").read_text())["test"]
    assert predicted.loss == pytest.approx(told["loss"], rel=1e-4)
    right = predicted.probabilities.argmax(axis=1) == experiment.test.labels
    assert np.mean(right) == pytest.approx(told["accuracy"])


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "nothing to take features from"),
        (["--config", "scam:tiny"], "the network has random weights"),
        (["--config", "scam:tiny", "--learning-rates", "0"], "--learning-rates (0.0,)"),
    ],
)
def test_what_cannot_be_probed_is_refused(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["probe", *arguments]) == EXIT_USAGE
    assert text in capsys.readouterr().err

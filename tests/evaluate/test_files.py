"""What an evaluation writes: predictions file, figures with their CSV, tables."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from wbc_jax.errors import UsageError
from wbc_jax.evaluate.figures import draw_all, training_figure
from wbc_jax.evaluate.predictions import columns, prediction_rows, write_predictions
from wbc_jax.evaluate.report import evaluate_predictions
from wbc_jax.evaluate.tables import class_table, overall_table, write_class_csv

NAMES = ("neutrophil", "monocyte", "basophil")
LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 0])
PROBABILITIES = np.random.default_rng(0).dirichlet([1, 1, 1], size=8)


def test_predictions_csv_has_a_row_per_image_and_a_column_per_class(tmp_path: Path) -> None:
    paths = [f"image {i}, with comma.png" for i in range(8)]
    rows = prediction_rows(paths, PROBABILITIES, NAMES, LABELS)
    count = write_predictions(tmp_path / "p.csv", rows, columns(NAMES, labelled=True))
    read = list(csv.DictReader((tmp_path / "p.csv").read_text().splitlines()))
    assert count == len(read) == 8
    assert read[3]["path"] == paths[3]
    assert read[3]["label"] == NAMES[LABELS[3]]
    assert read[3]["predicted"] == NAMES[PROBABILITIES[3].argmax()]
    assert float(read[3]["prob_monocyte"]) == pytest.approx(PROBABILITIES[3, 1], abs=1e-6)


def test_predictions_json_holds_numbers(tmp_path: Path) -> None:
    write_predictions(tmp_path / "p.json", prediction_rows(["x.png"], PROBABILITIES[:1], NAMES), [])
    (row,) = json.loads((tmp_path / "p.json").read_text())
    assert isinstance(row["confidence"], float)
    assert sum(row[f"prob_{name}"] for name in NAMES) == pytest.approx(1, abs=1e-5)


def test_unknown_ending_is_refused_and_a_failed_write_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.csv or \.json"):
        write_predictions(tmp_path / "p.xls", [], [])

    def broken():
        yield {"path": "a"}
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_predictions(tmp_path / "p.csv", broken(), ["path"])
    assert not (tmp_path / "p.csv").exists()


def test_figures_are_drawn_with_their_numbers(tmp_path: Path) -> None:
    evaluation = evaluate_predictions(LABELS, PROBABILITIES, NAMES, bootstrap_samples=20)
    for path in draw_all(evaluation, tmp_path, "test"):
        pixels = np.asarray(Image.open(path).convert("L"))
        assert pixels.std() > 5  # not blank
        assert path.with_suffix(".csv").read_text().count("\n") > 3
    counts = list(csv.reader((tmp_path / "confusion_test.csv").read_text().splitlines()))
    assert [[int(v) for v in row[1:]] for row in counts[1:]] == evaluation.counts.tolist()


def test_training_curve_of_a_short_history(tmp_path: Path) -> None:
    history = [
        {"step": 5, "epoch": 1.0, "epoch.loss": 1.2, "epoch.accuracy": 0.5},
        {"step": 5, "epoch": 1.0, "val.loss": 1.1, "val.accuracy": 0.6},
    ]
    assert training_figure(history, tmp_path / "t.png").stat().st_size > 5000


def test_tables_name_every_class_and_show_intervals(tmp_path: Path) -> None:
    evaluation = evaluate_predictions(LABELS, PROBABILITIES, NAMES, bootstrap_samples=20)
    console = Console(file=io.StringIO(), width=120)
    console.print(overall_table(evaluation, "test"), class_table(evaluation))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(name in text for name in (*NAMES, "95 % interval", "Matthews"))
    write_class_csv(evaluation, tmp_path / "c.csv")
    assert len((tmp_path / "c.csv").read_text().splitlines()) == 4

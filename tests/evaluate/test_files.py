"""What an evaluation writes: predictions file, figures with their CSV, tables."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from wbc_jax.catalog import ABSENT, ATTRIBUTES
from wbc_jax.errors import UsageError
from wbc_jax.evaluate.attribute_figures import attribute_confusion_figure
from wbc_jax.evaluate.attribute_report import AttributeEvaluation, evaluate_attributes
from wbc_jax.evaluate.attribute_tables import attribute_overall_table, attribute_table, write_attribute_csv
from wbc_jax.evaluate.attributes import fit_baselines
from wbc_jax.evaluate.figures import draw_all, training_figure
from wbc_jax.evaluate.prediction_formats import format_of
from wbc_jax.evaluate.predictions import prediction_rows, write_predictions
from wbc_jax.evaluate.report import evaluate_predictions
from wbc_jax.evaluate.tables import class_table, overall_table, write_class_csv

NAMES = ("neutrophil", "monocyte", "basophil")
LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 0])
PROBABILITIES = np.random.default_rng(0).dirichlet([1, 1, 1], size=8)


def test_predictions_csv_has_a_row_per_image_and_a_column_per_class(tmp_path: Path) -> None:
    paths = [f"image {i}, with comma.png" for i in range(8)]
    rows = prediction_rows(paths, PROBABILITIES, NAMES, LABELS)
    count = write_predictions(tmp_path / "p.csv", rows)
    read = list(csv.DictReader((tmp_path / "p.csv").read_text().splitlines()))
    assert count == len(read) == 8
    assert read[3]["path"] == paths[3]
    assert read[3]["label"] == NAMES[LABELS[3]]
    assert read[3]["predicted"] == NAMES[PROBABILITIES[3].argmax()]
    assert float(read[3]["prob_monocyte"]) == pytest.approx(PROBABILITIES[3, 1], abs=1e-6)


def test_predictions_json_holds_numbers(tmp_path: Path) -> None:
    write_predictions(tmp_path / "p.json", prediction_rows(["x.png"], PROBABILITIES[:1], NAMES))
    (row,) = json.loads((tmp_path / "p.json").read_text())
    assert isinstance(row["confidence"], float)
    assert sum(row[f"prob_{name}"] for name in NAMES) == pytest.approx(1, abs=1e-5)


def test_unknown_ending_is_refused_and_a_failed_write_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.csv, \.json, \.parquet"):
        write_predictions(tmp_path / "p.xls", [])

    def broken():
        yield {"path": "a"}
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_predictions(tmp_path / "p.csv", broken())
    assert not (tmp_path / "p.csv").exists()


def test_predictions_parquet_holds_names_and_numbers(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    paths = [f"{i}.png" for i in range(8)]
    write_predictions(tmp_path / "p.parquet", prediction_rows(paths, PROBABILITIES, NAMES, LABELS))
    write_predictions(tmp_path / "p.json", prediction_rows(paths, PROBABILITIES, NAMES, LABELS))
    assert parquet.read_table(tmp_path / "p.parquet").to_pylist() == json.loads(
        (tmp_path / "p.json").read_text()
    )


@pytest.mark.parametrize("suffix", [".csv", ".json", ".parquet"])
def test_joined_parts_are_the_file_written_at_once(tmp_path: Path, suffix: str) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    rows = list(prediction_rows([f"{i}, x.png" for i in range(8)], PROBABILITIES, NAMES, LABELS))
    parts = [tmp_path / f"part{i}{suffix}" for i in range(4)]
    for part, piece in zip(parts, (rows[:3], [], rows[3:4], rows[4:]), strict=True):
        write_predictions(part, piece)
    whole, joined = tmp_path / f"whole{suffix}", tmp_path / f"joined{suffix}"
    write_predictions(whole, rows)
    format_of(joined).join(parts, joined)
    if suffix == ".parquet":
        from pyarrow import parquet

        assert parquet.read_table(joined).equals(parquet.read_table(whole))
    else:
        assert joined.read_bytes() == whole.read_bytes()


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r"pip install 'wbc-jax\[parquet\]'"):
        write_predictions(tmp_path / "p.parquet", [])


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


def attribute_evaluation() -> AttributeEvaluation:
    random = np.random.default_rng(1)
    sizes = [len(attribute.values) for attribute in ATTRIBUTES]
    truth = np.stack([random.integers(0, size, 40) for size in sizes], axis=1)
    truth[:4] = ABSENT
    labels = random.integers(0, 3, 40)
    probabilities = np.concatenate([random.dirichlet(np.ones(size), 40) for size in sizes], axis=1)
    baselines = fit_baselines(labels, truth, 3)
    return evaluate_attributes(truth, probabilities, labels, baselines, bootstrap_samples=20)


def test_attribute_tables_show_baselines_and_the_distance_to_the_published_one(tmp_path: Path) -> None:
    evaluation = attribute_evaluation()
    console = Console(file=io.StringIO(), width=100)
    console.print(attribute_overall_table(evaluation, "test"), attribute_table(evaluation))
    text = " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]
    assert all(attribute.name.split("_")[0] in text for attribute in ATTRIBUTES)
    points = 94.09 - 100 * evaluation.overall["attribute_accuracy"]
    assert f"{points:.2f} points below the published 94.09%" in text
    for baseline in evaluation.baselines.values():
        assert f"{baseline['attribute_accuracy']:.4f}" in text
    write_attribute_csv(evaluation, tmp_path / "a.csv")
    rows = list(csv.DictReader((tmp_path / "a.csv").read_text().splitlines()))
    assert [row["attribute"] for row in rows] == [*(a.name for a in ATTRIBUTES), "mean"]
    assert {row["support"] for row in rows} == {"36"}
    for column, overall in (("accuracy", "attribute_accuracy"), ("hard_auc", "attribute_hard_auc")):
        assert float(rows[-1][column]) == pytest.approx(evaluation.overall[overall], abs=1e-6)
    assert float(rows[-1]["class_only_accuracy"]) == pytest.approx(
        np.mean([float(row["class_only_accuracy"]) for row in rows[:-1]]), abs=1e-6
    )


def test_attribute_matrices_are_drawn_with_their_numbers(tmp_path: Path) -> None:
    evaluation = attribute_evaluation()
    path = attribute_confusion_figure(evaluation, tmp_path / "attributes.png")
    with Image.open(path) as figure:
        assert np.asarray(figure.convert("L")).std() > 5
    rows = list(csv.DictReader((tmp_path / "attributes.csv").read_text().splitlines()))
    assert len(rows) == sum(len(attribute.values) ** 2 for attribute in ATTRIBUTES)
    counted = [int(row["count"]) for row in rows if row["attribute"] == "granule_type"]
    assert counted == evaluation.counts[8].ravel().tolist()

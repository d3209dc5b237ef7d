"""Scoring a run on its own images and on those of another laboratory."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import accuracy_score, recall_score
from tiny_run import CLASSES, STORE_SIZE, save_pictures

from wbc_jax.cli import main
from wbc_jax.commands.evaluate import EvaluateData, EvaluateOptions, choose_samples, evaluate
from wbc_jax.commands.predict import PredictOptions, predict
from wbc_jax.commands.run import LoadedRun, load_run
from wbc_jax.errors import EXIT_OK, DataError, UsageError


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another laboratory: other names for two of the classes, one class the run does not know, one missing."""
    folder = tmp_path_factory.mktemp("elsewhere")
    return save_pictures(folder, ("Lymphocytes", "NEUTROPHIL", "erythroblast"), per_class=6, seed=77)


@pytest.fixture
def options(elsewhere: Path, tmp_path: Path) -> EvaluateOptions:
    data = EvaluateData(dataset="image_folder", raw_dir=str(elsewhere))
    return EvaluateOptions(data=data, out=tmp_path / "out", bootstrap_samples=50)


def test_own_test_images_are_those_of_the_split(run: LoadedRun, pictures: Path, tmp_path: Path) -> None:
    options = EvaluateOptions(out=tmp_path, batch_size=4, bootstrap_samples=0)
    assert evaluate(run.directory, options) == EXIT_OK
    rows = rows_of(tmp_path / "image_folder-test" / "predictions" / "test.csv")
    split = json.loads((run.directory / "split.json").read_text())
    assert sorted(row["path"] for row in rows) == sorted(split["test"])
    assert {row["path"].split("/")[1] == row["label"] for row in rows} == {True}
    predict(run.directory, (pictures,), PredictOptions(out=tmp_path / "p.csv"))
    by_file = {Path(row["path"]).name: row["confidence"] for row in rows_of(tmp_path / "p.csv")}
    for row in rows:
        assert float(row["confidence"]) == pytest.approx(float(by_file[Path(row["path"]).name]), abs=3e-6)


def test_scores_are_scikit_learns(run: LoadedRun, options: EvaluateOptions) -> None:
    evaluate(run.directory, options)
    (folder,) = (path for path in options.out.iterdir() if path.is_dir())
    rows = rows_of(folder / "predictions" / "all.csv")
    labels, predicted = [row["label"] for row in rows], [row["predicted"] for row in rows]
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["all.accuracy"] == pytest.approx(accuracy_score(labels, predicted))
    present = sorted(set(labels))
    recalls = recall_score(labels, predicted, labels=present, average=None, zero_division=0.0)
    assert metrics["all.balanced_accuracy"] == pytest.approx(np.mean(recalls))


def test_classes_are_mapped_and_the_rest_is_counted(
    run: LoadedRun, options: EvaluateOptions, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = choose_samples(run, options.data, None)
    assert (chosen.split, chosen.own) == ("all", False)
    assert dict(chosen.left_out) == {"erythroblast": 6}
    folders = [identity.split("/")[0] for identity in chosen.samples.ids()]
    names = [CLASSES[label] for label in chosen.samples.labels]
    pairs = {("Lymphocytes", "lymphocyte"), ("NEUTROPHIL", "neutrophil")}
    assert set(zip(folders, names, strict=True)) == pairs
    assert len(names) == 12
    first = Image.open(elsewhere / chosen.samples.ids()[0]).resize(
        (STORE_SIZE,) * 2, Image.Resampling.LANCZOS
    )
    stored = chosen.samples.store.images[chosen.samples.rows[0]]
    np.testing.assert_array_equal(stored, np.asarray(first))
    evaluate(run.directory, options)
    printed = capsys.readouterr().out
    assert "outside the run's task and left out of the data set: erythroblast 6" in printed
    assert "classes without images here: eosinophil" in printed


def test_the_table_has_a_row_per_data_set_own_first(
    run_dir: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--data.dataset", "image_folder", "--data.raw-dir", str(elsewhere)]
    common = ["evaluate", str(run_dir), "--bootstrap-samples", "20"]
    assert main([*common, *data]) == EXIT_OK
    assert main(common) == EXIT_OK
    rows = rows_of(run_dir / "evaluations" / "cross_laboratory.csv")
    assert [row["own"] for row in rows] == ["True", "False"]
    assert [int(row["images"]) for row in rows] == [15, 12]
    assert rows[1]["dataset"] == f"image_folder {elsewhere.name}"
    assert rows[1]["outside_task"] == "6"
    for row in rows:
        assert float(row["accuracy"]) == pytest.approx(int(row["hits"]) / int(row["images"]))
        assert float(row["accuracy_low"]) <= float(row["accuracy"]) <= float(row["accuracy_high"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "say little about another laboratory" in printed
    assert f"{rows[0]['hits']} of 15" in printed
    figure = run_dir / "evaluations" / "image_folder-test" / "figures" / "confusion_test.png"
    assert figure.is_file()
    shutil.rmtree(run_dir / "evaluations")


def test_the_training_result_stands_in_for_the_own_test(run_dir: Path, options: EvaluateOptions) -> None:
    interval = {"accuracy": [0.85, 0.98]}
    overall = {"accuracy": 0.92, "balanced_accuracy": 0.91, "macro_f1": 0.9}
    test = {"count": 50, "hits": 46, "overall": overall, "intervals_95": interval}
    metrics = run_dir / "metrics.json"
    metrics.write_text(json.dumps({"test": test}))
    try:
        evaluate(run_dir, options)
    finally:
        metrics.unlink()
    first, second = rows_of(options.out / "cross_laboratory.csv")
    assert (first["dataset"], first["own"], first["hits"]) == ("image_folder", "True", "46")
    assert second["own"] == "False"


def test_another_split_than_the_runs_is_refused(run_dir: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run_dir, copy)
    split = json.loads((copy / "split.json").read_text())
    moved = split["train"].pop()
    split["test"].append(moved)
    (copy / "split.json").write_text(json.dumps(split))
    with pytest.raises(DataError, match="the ids have digest"):
        evaluate(copy, EvaluateOptions())


def test_changed_images_are_refused(run_dir: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    shutil.copytree(run_dir.parent / "images", images)
    for path in sorted((images / "test").rglob("*.png"))[:1]:
        Image.open(path).rotate(90).save(path)
    data = EvaluateData(raw_dir=str(images))
    with pytest.raises(DataError, match="now has digest"):
        choose_samples(load_run(run_dir), data, "test")


def test_training_images_are_called_no_measure(
    run: LoadedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate(run.directory, EvaluateOptions(split="all", out=tmp_path, bootstrap_samples=0))
    assert "no measure of its quality" in capsys.readouterr().out


def test_impossible_options_are_listed(run_dir: Path) -> None:
    with pytest.raises(UsageError, match=r"batch_size 0.*\n.*bootstrap_samples -1"):
        evaluate(run_dir, EvaluateOptions(batch_size=0, bootstrap_samples=-1))


def test_a_run_without_its_card_is_no_run(run_dir: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run_dir, copy)
    (copy / "card.json").write_text('{"task": {"name": "x"}}')
    with pytest.raises(DataError, match=r"lacks 'class_names'"):
        load_run(copy)
    (copy / "card.json").unlink()
    with pytest.raises(UsageError, match="not a run directory"):
        load_run(copy)

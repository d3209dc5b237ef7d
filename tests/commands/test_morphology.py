"""A network that predicts attributes, through every command that applies one."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny_run import CLASSES, SIZE, STORE_SIZE, make_run

from wbc_jax.catalog import ABSENT, ATTRIBUTES, class_task
from wbc_jax.cli import main
from wbc_jax.commands.evaluate import own_samples
from wbc_jax.commands.explain import choose_endpoint
from wbc_jax.commands.results import score_samples, training_baselines
from wbc_jax.commands.run import CARD_FILE, LoadedRun, load_run, write_card
from wbc_jax.commands.scoring import predict_samples
from wbc_jax.config import ModelConfig
from wbc_jax.errors import EXIT_OK, DataError, UsageError
from wbc_jax.evaluate.attributes import Baselines, fit_baselines, predicted_values
from wbc_jax.export.stablehlo import load_stablehlo
from wbc_jax.runtime.json_files import read_json, write_json
from wbc_jax.train.steps import make_eval_step, make_predict_step


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> LoadedRun:
    """An attribute predictor."""
    return load_run(make_run(tmp_path_factory.mktemp("map"), ModelConfig(name="map_tiny")))


@pytest.fixture(scope="module")
def fused(tmp_path_factory: pytest.TempPathFactory) -> LoadedRun:
    """A network that decides by attributes."""
    model = ModelConfig(name="daffnet_tiny", semantic_name="resnet_tiny", spatial_gate="none")
    return load_run(make_run(tmp_path_factory.mktemp("daffnet"), model))


@pytest.fixture(scope="module")
def stablehlo(run: LoadedRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export") / "cells.stablehlo"
    assert main(["export", str(run.directory), "--format", "stablehlo", "--out", str(out)]) == EXIT_OK
    return out


@pytest.fixture(scope="module")
def images(run: LoadedRun) -> Path:
    return run.directory.parent / "images" / "test"


def pixels(count: int = 5) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, STORE_SIZE, STORE_SIZE, 3), dtype=np.uint8)


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_a_prediction_holds_both(run: LoadedRun) -> None:
    said = jax.jit(run.predict_step())(run.variables, pixels())
    assert said.probabilities.shape == (5, 3)
    assert said.attribute_probabilities.shape == (5, 31)
    sums = np.add.reduceat(
        np.asarray(said.attribute_probabilities), [0, 2, 4, 10, 12, 14, 16, 18, 21, 25, 29], 1
    )
    np.testing.assert_allclose(sums, 1.0, rtol=1e-5)
    assert run.predicts_attributes()


def test_mirror_images_are_averaged_in_attributes_too(run: LoadedRun) -> None:
    views = [pixels(), pixels()[:, ::-1], pixels()[:, :, ::-1], pixels()[:, ::-1, ::-1]]
    plain = jax.jit(run.predict_step())
    each = [plain(run.variables, view.copy()).attribute_probabilities for view in views]
    averaged = jax.jit(make_predict_step(run.model, image_size_px=SIZE, flip_average=True))
    found = averaged(run.variables, pixels()).attribute_probabilities
    np.testing.assert_allclose(found, np.mean(each, axis=0), atol=1e-5)


@pytest.mark.parametrize("name", ["p.csv", "p.json"])
def test_predictions_name_each_attribute(run: LoadedRun, images: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / name
    command = ["predict", str(run.directory), str(images), "--out", str(out), "--batch-size", "4"]
    assert main(command) == EXIT_OK
    rows = rows_of(out) if out.suffix == ".csv" else json.loads(out.read_text())
    assert len(rows) == 15
    for row in rows:
        for attribute in ATTRIBUTES:
            assert row[attribute.name] in attribute.values
            assert 1 / len(attribute.values) <= float(row[f"{attribute.name}_confidence"]) <= 1
        assert not any(column.startswith("true_") for column in row)
        if out.suffix == ".json":
            assert isinstance(row["cell_size_confidence"], float)


def scored(run: LoadedRun, folder: Path, baselines: Baselines | None = None, *, annotated: bool = True):
    """The test pictures with made-up annotations, some of them missing."""
    samples, _ = own_samples(run, "test")
    random = np.random.default_rng(3)
    columns = [random.integers(0, len(a.values), len(samples.rows)) for a in ATTRIBUTES]
    attributes = np.stack(columns, axis=1).astype(np.int32)
    attributes[::4] = ABSENT
    if annotated:
        samples = dataclasses.replace(samples, attributes=attributes)
    step = jax.jit(make_eval_step(run.model, run.task, image_size_px=SIZE))
    results = score_samples(
        lambda samples: predict_samples(step, run.variables, samples, 4),
        samples,
        run.task.class_names,
        name="test",
        directory=folder,
        bootstrap_samples=10,
        baselines=lambda: baselines,
    )
    return samples, results


def test_scores_files_and_tables(
    run: LoadedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "110")
    attributes = np.zeros((3, 11), np.int32)
    samples, results = scored(run, tmp_path, fit_baselines(np.arange(3), attributes, 3))
    known = samples.attributes[:, 0] != ABSENT
    said = jax.jit(run.predict_step())(run.variables, np.asarray(samples.store.images[samples.rows]))
    right = predicted_values(np.asarray(said.attribute_probabilities)) == samples.attributes
    metrics = results.to_json("test")
    assert metrics["test.attribute_accuracy"] == pytest.approx(right[known].mean())
    assert metrics["test.subset_accuracy"] == right[known].all(axis=1).mean()
    assert metrics["test.hamming_loss"] == pytest.approx(1 - right[known].mean())
    details = metrics["test"]["attributes"]
    assert details["count"] == known.sum()
    assert details["published_official_test"]["attribute_accuracy"] == 0.9409
    baseline = (samples.attributes[known] == 0).mean()
    assert details["baselines"]["class_only"]["attribute_accuracy"] == pytest.approx(baseline)
    rows = rows_of(tmp_path / "predictions" / "test.csv")
    for row, sample, hit in zip(rows, samples.attributes, right, strict=True):
        for column, attribute in enumerate(ATTRIBUTES):
            true = "" if sample[column] == ABSENT else attribute.values[sample[column]]
            assert row[f"true_{attribute.name}"] == true
            assert (row[attribute.name] == true) == hit[column]
    for name in ("attributes_test.csv", "attribute_confusion_test.csv", "attribute_confusion_test.png"):
        assert (tmp_path / "figures" / name).stat().st_size > 100
    results.show("test")
    printed = capsys.readouterr().out
    assert all(
        text in printed for text in ("class only", "Hamming loss", "published 94.09%", "nucleus shape")
    )


def test_without_annotations_there_is_no_attribute_table(run: LoadedRun, tmp_path: Path) -> None:
    _, results = scored(run, tmp_path, annotated=False)
    assert results.attributes is None
    assert "attributes" not in results.to_json("test")["test"]
    assert not (tmp_path / "figures" / "attributes_test.csv").exists()
    assert rows_of(tmp_path / "predictions" / "test.csv")[0]["true_cell_size"] == ""


def test_baselines_come_from_annotated_training_images_of_the_task(run: LoadedRun) -> None:
    samples, _ = own_samples(run, "train")
    assert training_baselines(run.task, samples.store, samples.rows) is None
    attributes = np.tile(samples.labels[:, None], (1, 11)).astype(np.int32) % 2
    attributes[0] = ABSENT
    columns = dataclasses.replace(samples.store.samples, attributes=samples.store.samples.attributes.copy())
    columns.attributes[samples.rows] = attributes
    store = dataclasses.replace(samples.store, samples=columns)
    baselines = training_baselines(run.task, store, samples.rows)
    assert baselines is not None
    assert baselines.by_class.tolist() == [[0] * 11, [1] * 11, [0] * 11]
    two = training_baselines(class_task("two", CLASSES[1:]), store, samples.rows)
    assert two is not None
    assert two.by_class.tolist() == [[1] * 11, [0] * 11]


def test_an_export_carries_the_attributes(run: LoadedRun, stablehlo: Path) -> None:
    card = json.loads((stablehlo.parent / "cells.stablehlo.json").read_text())
    assert card["attributes"][2]["name"] == "nucleus_shape"
    assert [len(entry["values"]) for entry in card["attributes"]] == [len(a.values) for a in ATTRIBUTES]
    assert "(B, 31)" in card["output"]
    # As someone without this package reads it.
    program = jax.export.deserialize(bytearray(stablehlo.read_bytes()))
    probabilities, attributes = program.call(pixels())
    expected = jax.jit(run.predict_step())(run.variables, pixels())
    np.testing.assert_allclose(probabilities, expected.probabilities, atol=1e-5)
    np.testing.assert_allclose(attributes, expected.attribute_probabilities, atol=1e-5)


def test_an_export_predicts_attributes_by_name(stablehlo: Path, images: Path, tmp_path: Path) -> None:
    assert main(["predict", str(stablehlo), str(images), "--out", str(tmp_path / "p.csv")]) == EXIT_OK
    rows = rows_of(tmp_path / "p.csv")
    assert len(rows) == 15
    assert all(row[attribute.name] in attribute.values for row in rows for attribute in ATTRIBUTES)


def test_an_export_with_other_attributes_is_refused(stablehlo: Path, tmp_path: Path) -> None:
    copy = shutil.copy(stablehlo, tmp_path)
    card = json.loads((stablehlo.parent / "cells.stablehlo.json").read_text())
    card["attributes"][0]["values"].reverse()
    (tmp_path / "cells.stablehlo.json").write_text(json.dumps(card))
    with pytest.raises(DataError, match="predicts other attributes"):
        load_stablehlo(Path(copy))


def test_explanations_state_morphology_and_contributions(
    fused: LoadedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = fused.directory.parent / "images" / "test" / CLASSES[0]
    assert choose_endpoint(fused, None) == "semantic/stage4", "the class logit leads back to it"
    assert main(["explain", str(fused.directory), str(folder), "--out", str(tmp_path)]) == EXIT_OK
    assert "no annotated training images" in capsys.readouterr().out
    rows = rows_of(tmp_path / "explanations.csv")
    assert len(rows) == 5
    assert rows[0]["figure"] == "eos_0_cell.png"
    assert {row["endpoint"] for row in rows} == {"semantic/stage4"}
    assert all((tmp_path / name).is_file() for name in ("explanations.png", *(r["figure"] for r in rows)))
    contributions = [[float(row[f"{a.name}_contribution"]) for a in ATTRIBUTES] for row in rows]
    assert np.isfinite(contributions).all()
    assert np.any(contributions)
    assert all(row[attribute.name] in attribute.values for row in rows for attribute in ATTRIBUTES)


@pytest.mark.parametrize(("fields", "reached"), [({}, False), ({"map_gradient": True}, True)])
def test_a_map_without_gradient_is_refused(fused: LoadedRun, fields: dict[str, bool], reached: bool) -> None:
    run = dataclasses.replace(fused, model=fused.model.clone(**fields))
    if reached:
        assert choose_endpoint(run, "map/trunk/stage2") == "map/trunk/stage2"
    else:
        with pytest.raises(UsageError, match="gradient of a class does not reach 'map/trunk/stage2'"):
            choose_endpoint(run, "map/trunk/stage2")


def test_a_predictor_alone_has_no_contributions(run: LoadedRun, images: Path, tmp_path: Path) -> None:
    picture = images / CLASSES[0] / "eos_0.png"
    assert main(["explain", str(run.directory), str(picture), "--out", str(tmp_path)]) == EXIT_OK
    (row,) = rows_of(tmp_path / "explanations.csv")
    assert row["granularity"] in ("no", "yes")
    assert "granularity_contribution" not in row


def test_the_prior_comes_from_the_card(run: LoadedRun, tmp_path: Path) -> None:
    assert run.attribute_prior() is None, "its training images are not annotated"
    attributes = np.zeros((4, 11), np.int32)
    attributes[:, 2] = [5, 5, 1, ABSENT]
    write_card(tmp_path, run.config, run.task, 1, attributes)
    frequencies = read_json(tmp_path / CARD_FILE)["data"]["attribute_frequencies"]
    assert frequencies["nucleus_shape"]["unsegmented-round"] == pytest.approx(2 / 3)
    prior = dataclasses.replace(run, directory=tmp_path).attribute_prior()
    assert prior is not None
    np.testing.assert_allclose(prior[4:10], [0, 1 / 3, 0, 0, 0, 2 / 3])
    card = read_json(tmp_path / CARD_FILE)
    del card["data"]["attribute_frequencies"]  # as an older version wrote it
    write_json(tmp_path / CARD_FILE, card)
    assert dataclasses.replace(run, directory=tmp_path).attribute_prior() is None

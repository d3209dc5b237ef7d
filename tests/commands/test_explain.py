"""Explanations as files: figures, the table, and what is refused."""

from __future__ import annotations

import csv
import dataclasses
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from tiny_run import CLASSES, SIZE, STORE_SIZE, save_picture

from wbc_jax.cli import main
from wbc_jax.commands.explain import ExplainOptions, choose_endpoint, explain
from wbc_jax.commands.run import LoadedRun, build_model
from wbc_jax.config import ModelConfig
from wbc_jax.errors import EXIT_DATA, EXIT_OK, UsageError
from wbc_jax.explain.attributes import uniform_prior
from wbc_jax.explain.step import make_explain_step


def test_every_image_gets_a_figure_and_a_row(
    run: LoadedRun, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [pictures / CLASSES[0], save_picture(tmp_path / "other" / f"{CLASSES[0][:3]}_0.png", 5)]
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    command = ["explain", str(run.directory), *map(str, paths), str(broken), "--out", str(tmp_path / "maps")]
    assert main(command) == EXIT_OK
    rows = list(csv.DictReader((tmp_path / "maps" / "explanations.csv").read_text().splitlines()))
    assert len(rows) == 6
    assert {row["endpoint"] for row in rows} == {"stage4"}
    assert all(row["explained"] == row["predicted"] for row in rows)
    names = [row["figure"] for row in rows]
    assert names[0] == "eos_0_gradcam.png"
    assert names[-1] == "eos_0-2_gradcam.png"
    for name in [*names, "explanations.png"]:
        with Image.open(tmp_path / "maps" / name) as figure:
            assert min(figure.size) > 100
    assert "could not be used" in capsys.readouterr().out


def test_the_chosen_class_and_endpoint_are_shown(run: LoadedRun, pictures: Path, tmp_path: Path) -> None:
    options = ExplainOptions(out=tmp_path, class_name=CLASSES[2], endpoint="stage1")
    assert explain(run.directory, (pictures / CLASSES[1],), options) == EXIT_OK
    rows = list(csv.DictReader((tmp_path / "explanations.csv").read_text().splitlines()))
    assert {row["explained"] for row in rows} == {CLASSES[2]}
    assert {row["endpoint"] for row in rows} == {"stage1"}


def test_the_step_shows_what_the_network_saw(run: LoadedRun) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, STORE_SIZE, STORE_SIZE, 3), dtype=np.uint8)
    step = make_explain_step(
        run.model, run.predict_step(), "stage3", None, image_size_px=SIZE, prior=uniform_prior()
    )
    prediction, heat, seen, contributions = jax.jit(step)(run.variables, images)
    assert contributions is None
    edge = (STORE_SIZE - SIZE) // 2
    np.testing.assert_array_equal(seen, images[:, edge : edge + SIZE, edge : edge + SIZE])
    np.testing.assert_allclose(
        prediction.probabilities,
        jax.jit(run.predict_step())(run.variables, images).probabilities,
        rtol=1e-5,
        atol=1e-6,
    )
    assert heat.shape == (3, SIZE, SIZE)
    assert float(heat.min()) >= 0
    assert float(heat.max()) <= 1


def test_the_default_map_is_scams_output_or_the_last(run: LoadedRun) -> None:
    assert choose_endpoint(run, None) == "stage4"
    scam = build_model(ModelConfig(name="scam_tiny"), 5)
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32)
    variables = jax.eval_shape(lambda x: scam.init(jax.random.key(0), x, train=False), image)
    data = dataclasses.replace(run.config.data, image_size_px=32)
    config = dataclasses.replace(run.config, data=data)
    other = dataclasses.replace(run, model=scam, variables=variables, config=config)
    assert choose_endpoint(other, None) == "attended"
    assert choose_endpoint(other, "resnet/stage2") == "resnet/stage2"
    with pytest.raises(UsageError) as caught:
        choose_endpoint(other, "pooled")
    channels = other.model.projection_features
    assert re.search(rf"\n  attended: (\d+) x \1 x {channels}\n", str(caught.value))
    assert "spatial_gate" not in str(caught.value), "a gate is no feature map"


def test_unknown_class_gets_a_suggestion(run: LoadedRun, pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean neutrophil"):
        explain(run.directory, (pictures,), ExplainOptions(out=tmp_path, class_name="neutrophill"))


def test_no_readable_image_is_bad_data(run_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"")
    out = str(tmp_path / "maps")
    assert main(["explain", str(run_dir), str(tmp_path / "x.png"), "--out", out]) == EXIT_DATA

"""Exports: read back by independent means they answer as the run does, and what differs is not kept."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors import safe_open
from tiny_run import CLASSES, STORE_SIZE, save_picture

from wbc_jax.cli import main
from wbc_jax.commands import export as export_command
from wbc_jax.commands.export import ExportOptions, export
from wbc_jax.commands.predict import PredictOptions, predict
from wbc_jax.commands.run import LoadedRun
from wbc_jax.errors import EXIT_DATA, EXIT_OK, DataError, UsageError


def probabilities(path: Path) -> np.ndarray:
    rows = csv.DictReader(path.read_text().splitlines())
    return np.array([[float(row[f"prob_{name}"]) for name in CLASSES] for row in rows])


@pytest.fixture(scope="module")
def stablehlo(run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export") / "cells.stablehlo"
    assert main(["export", str(run_dir), "--format", "stablehlo", "--out", str(out)]) == EXIT_OK
    return out


def test_stablehlo_predicts_as_the_run(
    run_dir: Path, stablehlo: Path, pictures: Path, tmp_path: Path
) -> None:
    for source, name in ((run_dir, "run.csv"), (stablehlo, "exported.csv")):
        predict(source, (pictures,), PredictOptions(out=tmp_path / name, batch_size=4))
    found, expected = probabilities(tmp_path / "exported.csv"), probabilities(tmp_path / "run.csv")
    assert expected.shape == (15, 3)
    np.testing.assert_allclose(found, expected, atol=3e-6)


def test_stablehlo_runs_with_jax_alone(run: LoadedRun, stablehlo: Path) -> None:
    """As someone without this package reads it: any number of images, three platforms."""
    program = jax.export.deserialize(bytearray(stablehlo.read_bytes()))
    assert set(program.platforms) == {"cpu", "cuda", "tpu"}
    images = np.random.default_rng(0).integers(0, 256, (7, STORE_SIZE, STORE_SIZE, 3), dtype=np.uint8)
    expected = jax.jit(run.predict_step())(run.variables, images).probabilities
    for count in (1, 3, 7):
        np.testing.assert_allclose(program.call(images[:count]), expected[:count], atol=1e-5)


def test_the_card_says_what_it_is_and_how_far_it_was_checked(stablehlo: Path, run: LoadedRun) -> None:
    card = json.loads((stablehlo.parent / "cells.stablehlo.json").read_text())
    assert card["class_names"] == list(CLASSES)
    assert card["input"].startswith(f"uint8 (B, {STORE_SIZE}, {STORE_SIZE}, 3)")
    assert card["preprocessing"]["mean"] == [0.485, 0.456, 0.406]
    assert card["preprocessing"]["framing"] == run.framing
    assert card["check"]["images"] == 15
    assert card["check"]["largest_difference"] <= card["check"]["tolerance"] == 1e-4
    assert card["provenance"]["run"]["commit"] == "abc"
    assert "host" not in str(card["provenance"]), "where it was trained is nobody's business"
    assert card["use"] == "research use only"
    assert sorted(path.name for path in stablehlo.parent.iterdir()) == [
        "cells.stablehlo",
        "cells.stablehlo.json",
    ]


def test_a_file_that_is_not_the_cards_is_refused(stablehlo: Path, tmp_path: Path) -> None:
    picture = save_picture(tmp_path / "a.png", 0)
    copy = tmp_path / "cells.stablehlo"
    copy.write_bytes(stablehlo.read_bytes())
    options = PredictOptions(out=tmp_path / "p.csv")
    with pytest.raises(DataError, match="has no card"):
        predict(copy, (picture,), options)
    card = (stablehlo.parent / "cells.stablehlo.json").read_text()
    (tmp_path / "cells.stablehlo.json").write_text(card)
    predict(copy, (picture,), options)
    copy.write_bytes(stablehlo.read_bytes()[:-100])
    with pytest.raises(DataError, match="not the one that its card describes"):
        predict(copy, (picture,), options)


def test_safetensors_hold_every_array_and_the_card(run: LoadedRun, tmp_path: Path) -> None:
    out = tmp_path / "cells.safetensors"
    assert export(run.directory, ExportOptions(format="safetensors", out=out)) == EXIT_OK
    leaves = jax.tree_util.tree_leaves_with_path(run.variables)
    with safe_open(out, framework="numpy") as file:
        card = json.loads(file.metadata()["card"])
        assert len(list(file.keys())) == len(leaves)
        for path, leaf in leaves:
            np.testing.assert_array_equal(file.get_tensor("/".join(key.key for key in path)), leaf)
    assert card["class_names"] == list(CLASSES)
    beside = json.loads((tmp_path / "cells.safetensors.json").read_text())
    assert beside["check"]["largest_difference"] == 0.0


def test_images_to_check_on_can_be_given(run: LoadedRun, tmp_path: Path) -> None:
    images = tuple(save_picture(tmp_path / f"{i}.png", i) for i in range(3))
    out = tmp_path / "cells.safetensors"
    export(run.directory, ExportOptions(format="safetensors", out=out, check_images=images))
    card = json.loads((tmp_path / "cells.safetensors.json").read_text())
    assert (card["check"]["images"], card["check"]["source"]) == (3, "images given")


def test_an_export_that_answers_differently_is_not_kept(
    run: LoadedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(path: Path) -> dict:
        return jax.tree.map(lambda leaf: leaf * 1.05, run.variables)

    monkeypatch.setattr(export_command, "load_variables", wrong)
    with pytest.raises(DataError, match="differs from the run"):
        export(run.directory, ExportOptions(format="safetensors", out=tmp_path / "x.safetensors"))
    assert list(tmp_path.iterdir()) == []


def test_not_a_number_is_a_difference(
    run: LoadedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        export_command, "load_variables", lambda path: jax.tree.map(lambda leaf: leaf * np.nan, run.variables)
    )
    with pytest.raises(DataError, match="differs from the run by nan"):
        export(run.directory, ExportOptions(format="safetensors", out=tmp_path / "x.safetensors"))


def test_without_real_images_nothing_is_exported(
    run_dir: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy, out = tmp_path / "run", tmp_path / "out" / "cells.safetensors"
    shutil.copytree(run_dir, copy)
    config = (copy / "config.json").read_text()
    (copy / "config.json").write_text(config.replace(str(run_dir.parent / "images"), str(tmp_path / "gone")))
    command = ["export", str(copy), "--format", "safetensors", "--out", str(out)]
    assert main(command) == EXIT_DATA
    assert "--check-images" in capsys.readouterr().err
    assert not out.exists()
    assert main([*command, "--check-images", str(pictures)]) == EXIT_OK


def test_a_network_that_torchvision_does_not_have_is_refused(run: LoadedRun, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="torchvision has no resnet_tiny"):
        export(run.directory, ExportOptions(format="torch", out=tmp_path / "x.pth"))
    assert list(tmp_path.iterdir()) == []


def test_options_that_cannot_be_are_listed(run: LoadedRun, tmp_path: Path) -> None:
    out = tmp_path / "x.onnx"
    out.write_text("precious")
    with pytest.raises(UsageError) as caught:
        export(run.directory, ExportOptions(format="stablehlo", out=out, platforms=("tpu",)))
    for problem in ("must end in .stablehlo", "exists", "platforms: cpu"):
        assert problem in str(caught.value)
    assert out.read_text() == "precious"

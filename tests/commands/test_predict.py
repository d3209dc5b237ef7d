"""Prediction over files: equal to the network itself, whatever the batch, and patient with bad images."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_run import CLASSES, SIZE, STORE_SIZE, save_picture

from wbc_jax.cli import main
from wbc_jax.commands.image_files import find_images, make_batches, read_images
from wbc_jax.commands.predict import PredictOptions, predict
from wbc_jax.commands.run import LoadedRun
from wbc_jax.data.decode import BadImage
from wbc_jax.errors import EXIT_DATA, EXIT_OK, EXIT_USAGE, UsageError

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def probabilities_of(rows: list[dict[str, str]]) -> np.ndarray:
    return np.array([[float(row[f"prob_{name}"]) for name in CLASSES] for row in rows])


def direct(run: LoadedRun, path: Path) -> np.ndarray:
    """Softmax of the network's logits on an image that Pillow and NumPy prepared."""
    square = Image.open(path).convert("RGB").resize((STORE_SIZE, STORE_SIZE), Image.Resampling.LANCZOS)
    edge = (STORE_SIZE - SIZE) // 2
    seen = np.asarray(square)[edge : edge + SIZE, edge : edge + SIZE].astype(np.float32) / 255
    logits, _ = run.model.apply(run.variables, ((seen - MEAN) / STD)[None], train=False)
    shifted = np.exp(np.asarray(logits, np.float64)[0] - np.max(logits))
    return shifted / shifted.sum()


def test_predictions_are_those_of_the_network(run: LoadedRun, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.csv"
    assert predict(run.directory, (pictures,), PredictOptions(out=out)) == EXIT_OK
    rows = rows_of(out)
    assert [row["path"] for row in rows] == sorted(str(p) for p in pictures.rglob("*.png"))
    expected = np.stack([direct(run, Path(row["path"])) for row in rows])
    found = probabilities_of(rows)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert [row["predicted"] for row in rows] == [CLASSES[k] for k in expected.argmax(axis=1)]
    assert np.ptp(found, axis=0).max() > 0.05, "the pictures should not all look alike to the network"
    np.testing.assert_allclose([float(row["confidence"]) for row in rows], found.max(axis=1))
    assert not (tmp_path / "p.skipped.csv").exists()


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_the_batch_size_changes_nothing(
    run: LoadedRun, pictures: Path, tmp_path: Path, batch_size: int
) -> None:
    for name, size in (("a.csv", batch_size), ("b.csv", 15)):
        predict(run.directory, (pictures,), PredictOptions(out=tmp_path / name, batch_size=size))
    found, expected = (probabilities_of(rows_of(tmp_path / name)) for name in ("a.csv", "b.csv"))
    assert found.shape == (15, 3)
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_json_holds_the_same_numbers(run: LoadedRun, pictures: Path, tmp_path: Path) -> None:
    for name in ("p.csv", "p.json"):
        predict(run.directory, (pictures / CLASSES[0],), PredictOptions(out=tmp_path / name))
    rows = json.loads((tmp_path / "p.json").read_text())
    found = [[row[f"prob_{name}"] for name in CLASSES] for row in rows]
    np.testing.assert_array_equal(found, probabilities_of(rows_of(tmp_path / "p.csv")))


def make_mixed(folder: Path) -> Path:
    """Two pictures among files that are none."""
    save_picture(folder / "b_good.png", 1)
    save_picture(folder / "d" / "good.JPG", 2)
    (folder / "a_empty.png").write_bytes(b"")
    (folder / "c_text.jpg").write_text("no image")
    whole = save_picture(folder / "e_cut.jpeg", 3).read_bytes()
    (folder / "e_cut.jpeg").write_bytes(whole[: len(whole) // 2])
    (folder / "notes.txt").write_text("not looked at")
    return folder


def test_bad_images_are_listed_and_the_rest_is_classified(
    run: LoadedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = make_mixed(tmp_path / "mixed"), tmp_path / "p.csv"
    assert main(["predict", str(run.directory), str(folder), "--out", str(out)]) == EXIT_OK
    assert [Path(row["path"]).name for row in rows_of(out)] == ["b_good.png", "good.JPG"]
    skipped = rows_of(tmp_path / "p.skipped.csv")
    assert [Path(row["path"]).name for row in skipped] == ["a_empty.png", "c_text.jpg", "e_cut.jpeg"]
    assert skipped[0]["reason"] == "empty file"
    printed = capsys.readouterr().out
    assert "3 could not be used" in printed
    assert "e_cut.jpeg" in printed
    predict(run.directory, (folder / "b_good.png",), PredictOptions(out=out))
    assert not (tmp_path / "p.skipped.csv").exists(), "the list of an earlier call would mislead"


def test_stop_stops_at_the_first_bad_image(run: LoadedRun, tmp_path: Path) -> None:
    folder, out = make_mixed(tmp_path / "mixed"), tmp_path / "p.csv"
    with pytest.raises(BadImage, match="a_empty"):
        predict(run.directory, (folder,), PredictOptions(out=out, on_bad_image="stop"))
    assert not out.exists()
    assert not list(tmp_path.glob("*.part"))


def test_no_readable_image_is_bad_data(
    run: LoadedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.png").write_bytes(b"")
    out = tmp_path / "p.csv"
    assert main(["predict", str(run.directory), str(tmp_path / "x.png"), "--out", str(out)]) == EXIT_DATA
    assert "none of the 1 images can be used" in capsys.readouterr().err
    assert [p.name for p in tmp_path.glob("p*")] == ["p.skipped.csv"]


def test_what_cannot_be_is_said_before_anything_is_read(tmp_path: Path) -> None:
    picture = save_picture(tmp_path / "a.png", 0)
    with pytest.raises(UsageError, match=r"batch_size 0.*\n.*must end in .csv, .json, .parquet"):
        predict(tmp_path, (picture,), PredictOptions(out=tmp_path / "p.xlsx", batch_size=0))
    with pytest.raises(UsageError, match=r"no such file or folder: .*missing.png"):
        predict(tmp_path, (picture, tmp_path / "missing.png"), PredictOptions())
    with pytest.raises(UsageError, match="not a run directory"):
        predict(tmp_path, (picture,), PredictOptions(out=tmp_path / "p.csv"))
    with pytest.raises(UsageError, match="neither a run directory nor an exported model"):
        predict(picture, (picture,), PredictOptions(out=tmp_path / "p.csv"))
    (tmp_path / "empty").mkdir()
    assert main(["predict", str(tmp_path), str(tmp_path / "empty")]) == EXIT_USAGE


def test_each_image_comes_once_in_order(tmp_path: Path) -> None:
    for name in ("b.png", "a.PNG", "sub/c.tif", "d.gif"):
        save_picture(tmp_path / name, 0)
    found = find_images([tmp_path / "d.gif", tmp_path, tmp_path / "b.png"])
    assert [p.relative_to(tmp_path).as_posix() for p in found] == ["d.gif", "a.PNG", "b.png", "sub/c.tif"]


def test_batches_have_one_shape_and_no_holes(tmp_path: Path) -> None:
    files = [save_picture(tmp_path / f"{i}.png", i) for i in range(7)]
    files[2].write_bytes(b"broken")
    skipped: list[BadImage] = []
    images = read_images(files, size_px=8, framing="pad", on_bad_image="skip")
    batches = list(make_batches(images, 4, skipped))
    assert [batch.images.shape for batch in batches] == [(4, 8, 8, 3)] * 2
    names = [[Path(path).stem for path in batch.paths] for batch in batches]
    assert names == [["0", "1", "3", "4"], ["5", "6"]]
    assert [Path(problem.name).stem for problem in skipped] == ["2"]
    assert not batches[1].images[2:].any()

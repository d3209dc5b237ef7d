"""`wbc-jax benchmark predict`: two rates in turns, of the same network on the same number of images."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_run import CLASSES, make_run, save_pictures

from wbc_jax.commands.predict_speed import PredictSpeedOptions, run_predict_speed
from wbc_jax.data.decode import BadImage
from wbc_jax.errors import UsageError


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("home"))


def options(run_dir: Path | None, *paths: Path, out: Path | None = None) -> PredictSpeedOptions:
    return PredictSpeedOptions(
        source=run_dir, paths=paths, out=out, batch_size=4, warmup_steps=1, timed_steps=2, repeats=2
    )


def test_files_and_the_network_alone_get_a_row_each(run_dir: Path, tmp_path: Path) -> None:
    images, out = save_pictures(tmp_path / "images", CLASSES, 2), tmp_path / "rows.csv"
    assert run_predict_speed(options(run_dir, images, out=out)) == 0
    network, files = csv.DictReader(out.read_text().splitlines())
    assert (network["variant"], files["variant"]) == ("network", "predict")
    assert network["ratio"] == ""
    assert files["images"] == "6"  # fewer than a chain needs: they come round again
    ours, alone = float(files["images_per_s"]), float(network["images_per_s"])
    assert float(files["ratio"]) == pytest.approx(ours / alone, rel=1e-4)
    assert float(files["peer_images_per_s"]) == pytest.approx(alone, rel=1e-4)
    assert not list(tmp_path.glob("*.parts"))


def test_what_is_missing_is_named(run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no network"):
        run_predict_speed(options(None, tmp_path))
    with pytest.raises(UsageError, match="--precision bfloat16"):
        run_predict_speed(replace(options(run_dir, tmp_path), precision="bfloat16"))
    with pytest.raises(UsageError, match="no images found"):
        run_predict_speed(options(run_dir, tmp_path))
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(BadImage):
        run_predict_speed(options(run_dir, tmp_path))

"""One table and one picture from a network that is really trained, and trained once."""

from __future__ import annotations

import csv
from pathlib import Path

import jax
import pytest
from PIL import Image

from wbc_jax.cli import main
from wbc_jax.reproduce import registry
from wbc_jax.reproduce.exhibit import Exhibit, Row, arm


def test_table_and_grad_cam_of_a_trained_network(
    tmp_path: Path, raw_dir: Path, store_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = arm("scam", "lisc", model__name="resnet50", augment__mixup_alpha=0.0)
    row = Row(label="ResNet50", arm=trained, published={"accuracy": 50.0}, test_images=10, ours=True)
    exhibits = (
        Exhibit(
            paper="scam", key="table1", title="One network", kind="scores", rows=(row,), scores=("accuracy",)
        ),
        Exhibit(
            paper="scam",
            key="figure1",
            title="Where",
            kind="grad_cam",
            rows=(row,),
            endpoints=("stage3", "stage4"),
        ),
    )
    monkeypatch.setitem(registry.EXHIBITS, "scam", exhibits)
    out = tmp_path / "out"
    before = jax.config.read("jax_disable_most_optimizations")
    words = [
        "reproduce",
        "scam",
        "--budget",
        "smoke",
        "--raw-dir",
        str(raw_dir),
        "--cache-dir",
        str(store_dir),
    ]
    assert main([*words, "--out", str(out)]) == 0
    (run,) = (out / "runs").iterdir()
    assert "resnet_tiny" in (run / "train.log").read_text()
    with (out / "scam-smoke" / "table1.csv").open(newline="") as file:
        (record,) = csv.DictReader(file)
    assert record["runs"] == run.name
    assert (record["total"], record["published"]) == ("10", "50.00")
    with Image.open(out / "scam-smoke" / "figure1.png") as picture:
        assert picture.width > picture.height / 2 > 100
    assert jax.config.read("jax_disable_most_optimizations") == before

    finished = (run / "metrics.json").stat().st_mtime_ns
    assert main([*words, "--out", str(out), "table1"]) == 0
    assert (run / "metrics.json").stat().st_mtime_ns == finished

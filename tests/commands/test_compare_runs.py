"""Two predictions files compared from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from wbc_jax.cli import main
from wbc_jax.evaluate.predictions import prediction_rows, read_predictions, write_predictions

NAMES = ("eosinophil", "lymphocyte", "neutrophil")


def _run(
    folder: Path, seed: int, *, order: np.ndarray, names: tuple[str, ...] = NAMES, images: int = 40
) -> Path:
    labels = np.arange(images) % len(names)
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet(np.ones(len(names)), images)
    probabilities[np.arange(images), labels] += 0.4
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    paths = [f"cell_{i}.png" for i in range(images)]
    rows = list(prediction_rows(paths, probabilities, names, labels))
    shuffled = [rows[i] for i in order]
    write_predictions(folder / "predictions" / "test.csv", shuffled)
    return folder


def test_runs_are_matched_by_image_whatever_their_order(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    a = _run(tmp_path / "a", 1, order=np.arange(40))
    b = _run(tmp_path / "b", 1, order=np.arange(40)[::-1])
    out = tmp_path / "gap.json"
    assert main(["compare-runs", str(a), str(b), "--bootstrap-samples", "50", "--out", str(out)]) == 0
    facts = json.loads(out.read_text())
    assert facts["a_minus_b"]["accuracy"]["value"] == 0
    assert facts["mcnemar"]["only_a"] == facts["mcnemar"]["only_b"] == 0
    assert "no difference shown" in capsys.readouterr().out


def test_difference_is_that_of_the_files(tmp_path: Path) -> None:
    a = _run(tmp_path / "a", 1, order=np.arange(40))
    b = _run(tmp_path / "b", 2, order=np.arange(40))
    out = tmp_path / "gap.json"
    assert main(["compare-runs", str(a), str(b / "predictions" / "test.csv"), "--out", str(out)]) == 0
    read = [read_predictions(run / "predictions" / "test.csv") for run in (a, b)]
    shares = [float((r.predicted == r.labels).mean()) for r in read]
    assert shares[0] != shares[1]
    assert json.loads(out.read_text())["a_minus_b"]["accuracy"]["value"] == pytest.approx(
        shares[0] - shares[1]
    )


def test_other_images_or_classes_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    a = _run(tmp_path / "a", 1, order=np.arange(40))
    fewer = _run(tmp_path / "b", 1, order=np.arange(30), images=30)
    assert main(["compare-runs", str(a), str(fewer)]) == 3
    assert "10 of the 40 images" in capsys.readouterr().err
    other = _run(tmp_path / "c", 1, order=np.arange(40), names=("basophil", *NAMES[1:]))
    assert main(["compare-runs", str(a), str(other)]) == 3
    assert main(["compare-runs", str(a), str(tmp_path / "nowhere")]) == 2

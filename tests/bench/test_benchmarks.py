"""Whole benchmarks on tiny work, and the scripts on a machine that has only what an accelerator image has."""

from __future__ import annotations

import csv
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_run import save_pictures

from wbc_jax.bench.end_to_end import EndToEndOptions, run_end_to_end
from wbc_jax.bench.input import InputOptions, run_input
from wbc_jax.bench.mismatch import MismatchError
from wbc_jax.bench.startup import StartupOptions, run_startup
from wbc_jax.bench.step import StepOptions, make_cases, run_step
from wbc_jax.bench.subject import Case
from wbc_jax.bench.torch_loader import JpegImages, JpegWork
from wbc_jax.bench.variants import (
    Variant,
    VariantOptions,
    check_same_prediction,
    check_same_training,
    run_variants,
    variants_of,
)
from wbc_jax.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]
QUICK: dict[str, Any] = {
    "warmup_steps": 1,
    "timed_steps": 2,
    "repeats": 2,
    "batch_size": 4,
    "image_size_px": 32,
}


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_step_measures_training_and_inference(tmp_path: Path) -> None:
    out = tmp_path / "step.csv"
    for mode in ("train", "infer"):
        assert run_step(StepOptions(models=("resnet_tiny",), mode=mode, out=out, **QUICK)) == 0
    train, infer = read(out)
    assert (train["mode"], infer["mode"]) == ("train", "infer")
    assert float(train["loss_after"]) < float(train["loss_first"])
    assert infer["loss_first"] == ""
    assert float(train["mb_per_image"]) > 2 * float(infer["mb_per_image"])
    assert float(train["images_per_s"]) > 0


def test_step_refuses_unknown_networks_at_once() -> None:
    with pytest.raises(UsageError, match="did you mean 'resnet50'"):
        run_step(StepOptions(models=("resnet_tiny", "resnet5"), **QUICK))


def test_input_measures_stream_gather_and_augmentation(tmp_path: Path) -> None:
    out = tmp_path / "input.csv"
    assert run_input(InputOptions(images=12, store_size_px=36, out=out, **QUICK)) == 0
    rows = read(out)
    modes = ["resident", "augment", "stream", "resident+augment", "stream+augment"]
    assert [row["mode"] for row in rows] == modes
    assert [row["image_size_px"] for row in rows] == ["36", "32", "36", "32", "32"]
    assert all(float(row["images_per_s"]) > 0 and not row["peer"] for row in rows)


def test_input_of_jpeg_files_is_set_beside_torchs_loader(tmp_path: Path) -> None:
    folder, out = tmp_path / "images", tmp_path / "input.csv"
    save_pictures(folder, ("a", "b"), 3)
    for picture in list(folder.rglob("*.png")):
        with Image.open(picture) as image:
            image.save(picture.with_suffix(".jpg"))
    quick = {**QUICK, "batch_size": 3, "torch_workers": 0, "store_size_px": 36}
    assert run_input(InputOptions(jpeg_dir=folder, images=5, out=out, **quick)) == 0
    rows = read(out)
    assert {row["images"] for row in rows} == {"5"}
    assert [row["mode"] for row in rows if row["peer"]] == ["resident+augment", "stream+augment"]
    for row in rows[-2:]:
        assert row["peer"] == "torch DataLoader, JPEG, 0 workers"
        against = float(row["images_per_s"]) / float(row["peer_images_per_s"])
        assert float(row["ratio"]) == pytest.approx(against, rel=1e-3)
    with pytest.raises(UsageError, match="6 JPEG files"):
        run_input(InputOptions(jpeg_dir=folder, **{**quick, "batch_size": 7}))


def test_torchs_loader_augments_the_files_and_normalises(tmp_path: Path) -> None:
    """A grey image stays near its grey, whatever is drawn; two draws differ."""
    path = tmp_path / "grey.jpg"
    Image.new("RGB", (80, 60), (124, 116, 104)).save(path, quality=95)
    images = JpegImages(JpegWork((str(path),), 72, 32))
    first, second = images[0], images[0]
    assert first.shape == (3, 32, 32)
    assert float(first.abs().mean()) < 1.0
    assert not bool((first == second).all())


def test_end_to_end_trains_on_the_same_batches_from_either_loader(tmp_path: Path) -> None:
    out = tmp_path / "end.csv"
    options = EndToEndOptions(models=("resnet_tiny",), images=12, store_size_px=36, out=out, **QUICK)
    assert run_end_to_end(options) == 0
    synthetic, stream, resident = read(out)
    assert (stream["data_mode"], resident["data_mode"]) == ("streaming", "device-resident")
    assert stream["loss_first"] == resident["loss_first"] != synthetic["loss_first"]
    assert float(stream["loss_after"]) == pytest.approx(float(resident["loss_after"]), rel=1e-4)
    assert synthetic["input_overhead_percent"] == ""
    for row in (stream, resident):
        slower = float(synthetic["images_per_s"]) / float(row["images_per_s"])
        assert float(row["input_overhead_percent"]) == pytest.approx(100 * (slower - 1), abs=0.01)


def test_forms_of_a_step_train_alike_and_are_set_beside_the_default(tmp_path: Path) -> None:
    out = tmp_path / "variants.csv"
    options = VariantOptions(models=("resnet_tiny",), steps_per_call=(2,), out=out, **QUICK)
    assert run_variants(options) == 0
    default, row = read(out)
    assert (default["variant"], row["variant"]) == ("default", "steps_per_call=2")
    assert (default["timed_steps"], row["timed_steps"]) == ("2", "4")
    assert default["ratio"] == ""
    against = float(row["images_per_s"]) / float(row["peer_images_per_s"])
    assert float(row["ratio"]) == pytest.approx(against, rel=1e-3)
    assert float(row["step_ms"]) == pytest.approx(4e3 / float(row["images_per_s"]), rel=1e-3)
    (case,) = make_cases(options)
    both = "pointwise=native,grouped=merged64"
    listed = variants_of(case, VariantOptions(steps_per_call=(1, 4), batch_sizes=(4, 16), forms=(both,)))
    assert [(v.label, v.case.batch_size) for v in listed] == [
        ("default", 4),
        (both, 4),
        ("steps_per_call=4", 4),
        ("batch_size=16", 16),
    ]
    assert dict(listed[1].forms) == {"pointwise": "native", "grouped": "merged64"}
    with pytest.raises(UsageError, match="steps-per-call or --batch-sizes 0"):
        run_variants(VariantOptions(models=("resnet_tiny",), steps_per_call=(0,)))
    with pytest.raises(UsageError, match="no such form: stem=dot"):
        run_variants(VariantOptions(models=("resnet_tiny",), forms=("stem=dot",)))


def test_forms_of_a_prediction_predict_alike(tmp_path: Path) -> None:
    out = tmp_path / "variants.csv"
    forms = ("growth=native", "strided=native")
    options = VariantOptions(models=("densenet_tiny",), mode="infer", forms=forms, out=out, **QUICK)
    assert run_variants(options) == 0
    default, row = read(out)  # densenet_tiny has a strided convolution, whose gradient alone has another form
    assert (default["variant"], row["variant"]) == ("default", "growth=native")
    assert (row["mode"], row["peer"], row["loss_first"]) == ("infer", "default", "")
    assert float(row["ratio"]) > 0
    with pytest.raises(UsageError, match="--steps-per-call with --mode infer"):
        run_variants(replace(options, steps_per_call=(2,)))


def test_startup_is_that_of_a_fresh_process(tmp_path: Path) -> None:
    out = tmp_path / "startup.csv"
    options = StartupOptions(models=("resnet_tiny",), batch_size=2, image_size_px=32, repeats=1, out=out)
    assert run_startup(options) == 0
    (row,) = read(out)  # a CPU has no warm start
    assert (row["mode"], row["batch_size"]) == ("cold", "2")
    assert float(row["wall_s"]) > float(row["compile_s"]) > float(row["step_ms"]) / 1e3 > 0


def test_a_form_that_trains_otherwise_is_refused() -> None:
    case = Case("resnet_tiny", "train", 4, 32, 5, np.dtype(np.float32))
    variants = [Variant("default", case), Variant("steps_per_call=2", case, 2)]

    def subject(loss: float) -> Any:
        return SimpleNamespace(run=lambda steps: None, last_loss=loss)

    check_same_training(variants, {"default": subject(0.9), "steps_per_call=2": subject(0.9)})
    with pytest.raises(MismatchError, match="steps_per_call=2: loss"):
        check_same_training(variants, {"default": subject(0.9), "steps_per_call=2": subject(0.8)})


def test_a_form_that_predicts_otherwise_is_refused() -> None:
    case = Case("resnet_tiny", "infer", 4, 32, 5, np.dtype(np.float32))
    variants = [Variant("default", case), Variant("stem=padded", case)]

    def subject(first: float) -> Any:
        return SimpleNamespace(probabilities=lambda: np.asarray([[first, 1 - first]], np.float32))

    check_same_prediction(variants, {"default": subject(0.3), "stem=padded": subject(0.3005)})
    for wrong in (0.31, float("nan")):
        with pytest.raises(MismatchError, match=r"(?s)stem=padded: probabilities.*benchmark variants"):
            check_same_prediction(variants, {"default": subject(0.3), "stem=padded": subject(wrong)})


LACKING = ("grain", "array_record", "tensorflow_datasets", "orbax", "tyro")


def test_scripts_run_without_what_an_accelerator_image_lacks() -> None:
    """Step and comparison need jax, flax (which brings rich), optax and numpy; the twins torch and safetensors."""
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        f"for name in (*{LACKING!r}, 'PIL', 'sklearn'): sys.modules[name] = None\n"
        "import wbc_jax.bench.compare, wbc_jax.bench.torch_subject\n"
        "from wbc_jax.bench.step import StepOptions, make_cases, run_step\n"
        "from wbc_jax.bench.arguments import run_from_command_line\n"
        "line = '--models resnet_tiny --mode infer --batch-size 2 --image-size-px 32 --repeats 1 --timed-steps 1'\n"
        "sys.exit(run_from_command_line(StepOptions, run_step, line.split()))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "resnet_tiny" in done.stdout


@pytest.mark.parametrize(
    "name", ["step", "input", "end_to_end", "compare", "memory", "variants", "scaling", "startup"]
)
def test_scripts_work_from_a_checkout(name: str, tmp_path: Path) -> None:
    script = ROOT / "benchmarks" / f"{name}.py"
    done = subprocess.run(
        [sys.executable, script, "--help"], capture_output=True, text=True, cwd=tmp_path, env={}
    )
    assert done.returncode == 0, done.stderr
    assert "--out" in done.stdout

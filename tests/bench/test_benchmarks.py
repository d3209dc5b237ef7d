"""Whole benchmarks on tiny work, and the scripts on a machine that has only what an accelerator image has."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from wbc_jax.bench.end_to_end import EndToEndOptions, run_end_to_end
from wbc_jax.bench.input import InputOptions, run_input
from wbc_jax.bench.step import StepOptions, run_step
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
    assert [row["mode"] for row in rows] == ["stream", "resident", "augment"]
    assert [row["image_size_px"] for row in rows] == ["36", "36", "32"]
    assert all(float(row["images_per_s"]) > 0 for row in rows)


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


def test_scripts_run_without_what_an_accelerator_image_lacks() -> None:
    """Step and comparison need jax, flax (which brings rich), optax and numpy; the twins torch and safetensors."""
    lacking = ("grain", "tensorflow_datasets", "orbax", "tyro", "PIL", "sklearn")
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        f"for name in {lacking!r}: sys.modules[name] = None\n"
        "import wbc_jax.bench.compare, wbc_jax.bench.torch_subject\n"
        "from wbc_jax.bench.step import StepOptions, run_step\n"
        "from wbc_jax.bench.arguments import run_from_command_line\n"
        "line = '--models resnet_tiny --mode infer --batch-size 2 --image-size-px 32 --repeats 1 --timed-steps 1'\n"
        "sys.exit(run_from_command_line(StepOptions, run_step, line.split()))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "resnet_tiny" in done.stdout


@pytest.mark.parametrize("name", ["step", "input", "end_to_end", "compare", "memory"])
def test_scripts_work_from_a_checkout(name: str, tmp_path: Path) -> None:
    script = ROOT / "benchmarks" / f"{name}.py"
    done = subprocess.run(
        [sys.executable, script, "--help"], capture_output=True, text=True, cwd=tmp_path, env={}
    )
    assert done.returncode == 0, done.stderr
    assert "--out" in done.stdout

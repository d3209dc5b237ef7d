"""benchmarks/gpu.sh: it goes on where it stopped, and asks the benchmarks for nothing that they do not have."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from wbc_jax.bench.arguments import parse_options
from wbc_jax.bench.form_names import parse_forms
from wbc_jax.bench.step import make_cases
from wbc_jax.bench.twins import require_twins
from wbc_jax.bench.variants import variants_of
from wbc_jax.commands.benchmark import BENCHMARKS
from wbc_jax.models.lowerings import KINDS

ROOT = Path(__file__).resolve().parents[2]


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


TINY_PAPERS = ("resnet_tiny", "scam_tiny", "daffnet_tiny", "amnet_tiny")
LACKING = ("grain", "array_record", "tensorflow_datasets", "orbax", "tyro")


def test_gpu_script_runs_on_a_bare_image_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """Two of its parts, in small, where half of our dependencies cannot be imported."""
    guard = tmp_path / "guard"
    guard.mkdir()
    blocked = (
        f"import sys\nLACKING = {LACKING!r}\n"
        "class Guard:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in LACKING: raise ModuleNotFoundError(f'{name} is not on a bare image')\n"
        "sys.meta_path.insert(0, Guard())\n"
    )
    (guard / "sitecustomize.py").write_text(blocked)
    out = tmp_path / "results"

    def call(*parts: str, seconds: int = 3000) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "WBC_BENCH_PRESET": "tiny", "PYTHON": sys.executable}
        environment |= {"PYTHONPATH": str(guard), "WBC_BENCH_SECONDS": str(seconds), "JAX_PLATFORMS": "cpu"}
        command = ["bash", ROOT / "benchmarks" / "gpu.sh", out, *parts]
        return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)

    late = call("input", "compare-infer-resnet_tiny", seconds=1)
    assert late.returncode == 0, late.stderr
    assert "2 parts are left" in late.stdout
    done = call("input", "compare-infer-resnet_tiny")
    assert done.returncode == 0, done.stdout
    assert "grain is not installed" in done.stdout
    assert [row["mode"] for row in read(out / "input.csv")] == ["resident", "augment", "resident+augment"]
    compared = read(out / "compare-infer-resnet_tiny.csv")
    assert [row["model"] for row in compared] == ["resnet_tiny"]
    assert all(row["peer"].startswith("torch") and float(row["ratio"]) > 0 for row in compared)
    assert (out / "compare-infer-resnet_tiny.png").read_bytes()[1:4] == b"PNG"
    again = call("input", "compare-infer-res*")
    assert again.stdout.split("\n")[:2] == ["input: done before", "compare-infer-resnet_tiny: done before"]
    assert len(read(out / "input.csv")) == 3


@pytest.mark.parametrize("preset", ["full", "tiny"])
@pytest.mark.parametrize("devices", [1, 4])
def test_gpu_script_asks_for_what_there_is(preset: str, devices: int, tmp_path: Path) -> None:
    """Every part's command line, written down instead of carried out, is parsed, and its networks and forms exist."""
    lines, python = tmp_path / "lines", tmp_path / "python"
    python.write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >> "{lines}"\n')
    python.chmod(0o755)
    environment = {**os.environ, "PYTHON": str(python), "WBC_BENCH_PRESET": preset}
    environment |= {"WBC_BENCH_SECONDS": "100000", "WBC_BENCH_DEVICES": str(devices)}
    script = ROOT / "benchmarks" / "gpu.sh"
    done = subprocess.run(["bash", script, tmp_path / "out"], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    asked = [line.split() for line in lines.read_text().splitlines()]
    files = [Path(line[-1]) for line in asked]
    assert len(set(files)) == len(files) > 50
    assert all(file.with_suffix(".done").exists() for file in files)
    papers = ("resnet50", "scam", "daffnet", "amnet") if preset == "full" else TINY_PAPERS
    assert [file.stem for file in files[:4]] == [f"compare-train-{name}" for name in papers]
    assert any(file.stem == "scaling" for file in files) == (devices > 1)
    kinds: set[str] = set()
    for path, *arguments in asked:
        name = Path(path).stem.replace("_", "-")
        options = parse_options(BENCHMARKS[name][0], arguments)
        if name != "input":
            make_cases(options.as_model_options() if name == "startup" else options)
        if name == "compare":
            require_twins(options.models)
            assert len(options.models) == 1
        if name == "variants":
            kinds.update(kind for text in options.forms for kind in parse_forms(text, where=path))
            (case,) = make_cases(options)
            labels = [variant.label for variant in variants_of(case, options)]
            assert len(set(labels)) == len(labels)
    # The others are a CPU's: its library, an option of its compiler, loops for its caches, what `split` leads to, and
    # what cuDNN has of its own.
    assert set(KINDS) - kinds == {"three_by_three", "library", "dense", "channel_sums", "large_kernel"}

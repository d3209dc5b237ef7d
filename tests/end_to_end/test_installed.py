"""The wheel carries everything: recipes work after installation, far from the checkout."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from .conftest import SMALL

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the checkout and unpacked into a folder of its own."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=REPOSITORY, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def _run(site: Path, environment: dict[str, str], cwd: Path, *arguments: str) -> str:
    command = [sys.executable, "-c", "import sys; from wbc_jax.cli import main; sys.exit(main(sys.argv[1:]))"]
    done = subprocess.run(
        [*command, *arguments],
        cwd=cwd,
        env={**environment, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_wheel_has_recipes_types_and_data_set_descriptions(site: Path) -> None:
    for name in (
        "py.typed",
        "configs/scam.py",
        "data/datasets/pbc/CITATIONS.bib",
        "data/datasets/pbc/README.md",
    ):
        assert (site / "wbc_jax" / name).is_file(), name


def test_recipes_resolve_outside_the_checkout(
    site: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    config = json.loads(_run(site, environment, tmp_path, "config", "--config", "scam"))
    assert config["model"]["name"] == "scam"


def test_scam_recipe_trains_from_the_wheel(site: Path, environment: dict[str, str], tmp_path: Path) -> None:
    arguments = (
        "train",
        "--config",
        "scam",
        "--data.dataset",
        "synthetic_smear",
        "--train.epochs",
        "1",
        *SMALL,
    )
    _run(site, environment, tmp_path, *arguments, "--run-dir", str(tmp_path / "run"))
    assert (tmp_path / "run" / "metrics.json").is_file()

"""The architecture as a test: pure modules stay pure, rooms look left only, no file can run code."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "wbc_jax"

ROOMS = (
    "runtime",
    "data",
    "models",
    "weights",
    "train",
    "evaluate",
    "explain",
    "export",
    "bench",
    "commands",
    "reproduce",
    "cli",
)
"""Left to right. `configs`, `config*`, `catalog` and `errors` may be imported from everywhere."""

PURE = (
    "config.py",
    "config_check.py",
    "config_json.py",
    "configs",
    "config_image_sizes.py",
    "config_morphology.py",
    "config_problem.py",
    "catalog.py",
    "errors.py",
    "data/batch.py",
    "data/grouping.py",
    "data/held_out.py",
    "data/order.py",
    "data/placement.py",
    "data/samples.py",
    "data/sources.py",
    "data/splits.py",
    "models",
    "weights/naming",
    "weights/starts.py",
    "train/attribute_losses.py",
    "train/augment.py",
    "train/colour.py",
    "train/geometry.py",
    "train/freeze.py",
    "train/ghost.py",
    "train/known_attributes.py",
    "train/image_sizes.py",
    "train/losses.py",
    "train/objective.py",
    "train/optim.py",
    "train/probe.py",
    "train/parallel.py",
    "train/schedules.py",
    "train/stages.py",
    "train/state.py",
    "train/steps.py",
    "evaluate/attributes.py",
    "evaluate/confusion.py",
    "evaluate/calibration.py",
    "explain/attributes.py",
    "explain/grad_cam.py",
    "explain/step.py",
    "reproduce/exhibit.py",
    "reproduce/budget.py",
    "reproduce/cautions.py",
    "reproduce/published",
    "reproduce/scam.py",
    "reproduce/amnet.py",
    "reproduce/daffnet.py",
)
PURE_LIBRARIES = {"jax", "jaxlib", "flax", "optax", "numpy", "chex", "wbc_jax"}
PURE_STANDARD = {
    "__future__", "abc", "collections", "contextlib", "contextvars", "dataclasses", "difflib", "enum", "functools",
    "hashlib", "inspect", "itertools", "json", "math", "operator", "platform", "re", "types", "typing",
}  # fmt: skip


def _sources() -> list[Path]:
    return sorted(p for p in PACKAGE.rglob("*.py") if "configs" not in p.parts)


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _is_pure(path: Path) -> bool:
    name = path.relative_to(PACKAGE).as_posix()
    return any(name == pure or name.startswith(pure + "/") for pure in PURE)


def test_every_pure_module_named_here_exists() -> None:
    assert [name for name in PURE if not (PACKAGE / name).exists()] == []


@pytest.mark.parametrize("path", [p for p in _sources() if _is_pure(p)], ids=str)
def test_pure_module_imports_only_pure_things(path: Path) -> None:
    roots = {name.split(".")[0] for name in _imports(path)}
    assert roots <= PURE_LIBRARIES | PURE_STANDARD
    for name in _imports(path):
        if name.startswith("wbc_jax."):
            target = PACKAGE.joinpath(*name.split(".")[1:])
            if target.with_suffix(".py").is_file():
                assert _is_pure(target.with_suffix(".py")), f"{path} imports {name}, which is not pure"


@pytest.mark.parametrize("path", _sources(), ids=str)
def test_rooms_import_from_the_left_or_from_pure_modules(path: Path) -> None:
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if room not in ROOMS:
        return
    for name in _imports(path):
        parts = name.split(".")
        if parts[0] != "wbc_jax" or len(parts) < 2 or parts[1] not in ROOMS:
            continue
        target = PACKAGE.joinpath(*parts[1:]).with_suffix(".py")
        if ROOMS.index(parts[1]) > ROOMS.index(room) and target.is_file():
            assert _is_pure(target), f"{path} imports {name}, a room to its right"


FORBIDDEN_CALLS = {"eval", "exec", "__import__"}
FORBIDDEN_IMPORTS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml"}


@pytest.mark.parametrize("path", _sources(), ids=str)
def test_no_file_that_we_read_can_run_code(path: Path) -> None:
    assert not {name.split(".")[0] for name in _imports(path)} & FORBIDDEN_IMPORTS
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
        assert called not in FORBIDDEN_CALLS
        assert not called.endswith("import_module")
        if called == "torch.load":
            assert keywords.get("weights_only") == "True"
        if called in ("np.load", "numpy.load"):
            assert keywords.get("allow_pickle") in (None, "False")


HEAVY = ("grain", "tensorflow_datasets", "orbax", "tyro", "PIL", "matplotlib", "sklearn", "skimage", "torch")


@pytest.mark.parametrize(
    ("module", "banned"),
    [
        ("wbc_jax", (*HEAVY, "rich", "jax", "numpy")),
        ("wbc_jax.cli", (*HEAVY, "rich", "jax")),
        ("wbc_jax.models", HEAVY),
        ("wbc_jax.train.steps", HEAVY),
    ],
)
def test_import_pulls_in_nothing_heavy(module: str, banned: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print([m for m in {banned!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_bare_accelerator_image_is_enough_for_models_and_steps() -> None:
    """grain, TFDS, orbax and tyro may be missing altogether."""
    code = (
        "import sys\n"
        "for name in ('grain', 'tensorflow_datasets', 'orbax', 'tyro', 'PIL'): sys.modules[name] = None\n"
        "import wbc_jax.models, wbc_jax.train.steps, wbc_jax.train.augment, wbc_jax.train.optim\n"
        "print(len(wbc_jax.models.list_models()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

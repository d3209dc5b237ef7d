"""Strictness for every test: no silent promotion or broadcasting; four virtual CPU devices.

Most tests compute for milliseconds and compile for seconds, so programs are compiled with little optimisation, in one
piece and, where jaxlib still has them, by the older fusion emitters, which halves the time of the whole.
`JAX_DISABLE_MOST_OPTIMIZATIONS=0 XLA_FLAGS=--xla_force_host_platform_device_count=4 pytest` compiles as users do.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_force_host_platform_device_count=4 --xla_cpu_parallel_codegen_split_count=1"
    + (" --xla_cpu_use_fusion_emitters=false" if version("jaxlib").startswith("0.10.") else ""),
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # torch's: each of the two workers has a core

import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
gc.set_threshold(100_000, 20, 20)  # tracing makes many objects, few of them garbage

REPOSITORY = Path(__file__).resolve().parents[1]


_LONGEST = (
    "end_to_end/test_staged",
    "end_to_end",
    "models/test_contract",
    "commands",
    "bench",
    "faults",
    "parity",
    "train",
)
"""What is started first, so that no worker is left alone with a long file at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def rank(item: pytest.Item) -> int:
        path = item.path.relative_to(REPOSITORY / "tests").as_posix()
        return next((r for r, start in enumerate(_LONGEST) if path.startswith(start)), len(_LONGEST))

    items.sort(key=rank)


@pytest.fixture(scope="module")
def optimised() -> Iterator[None]:
    """Programs of this module are optimised as users' are."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder with the real images; a test that needs it is skipped, and counted, where there is none."""
    configured = os.environ.get("WBC_DATA_DIR")
    folder = Path(configured) if configured else REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no real images: set WBC_DATA_DIR to the folder that holds them")
    return folder


@pytest.fixture
def cache_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A private cache, so that a test never reads or leaves anything in the user's."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("WBC_CACHE_DIR", str(folder))
    return folder

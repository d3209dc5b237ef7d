"""Small stand-ins for two of the papers' data sets, and training that takes no time."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_training import FakeTraining
from tiny_run import save_pictures

from wbc_jax.reproduce import runs


@pytest.fixture(scope="session")
def raw_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds lisc/, of coloured pictures; no other data set is here."""
    home = tmp_path_factory.mktemp("raw")
    save_pictures(home / "lisc", ("baso", "eosi", "lymp", "mono", "neut"), 10)
    return home


@pytest.fixture(scope="session")
def store_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cache of prepared stores, shared by the tests."""
    return tmp_path_factory.mktemp("stores")


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> FakeTraining:
    """Takes the place of `train`."""
    fake = FakeTraining()
    monkeypatch.setattr(runs, "train", fake)
    monkeypatch.setattr(runs, "_release_memory", lambda: None)
    return fake

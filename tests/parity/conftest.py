"""Parity is a statement about the programs that users run, so they are compiled alike."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True, scope="module")
def _as_users_compile(optimised: None) -> None:
    pass

"""How the steps of several networks are compiled before they are measured."""

from __future__ import annotations

import time

import pytest

from wbc_jax.bench import step
from wbc_jax.bench.step import compile_all


def makers(made: list[int], count: int = 3) -> list:
    """Functions of which the first is done first."""

    def make(index: int) -> int:
        time.sleep(0.05 * index)
        made.append(index)
        return index

    return [lambda index=index: make(index) for index in range(count)]


def test_on_an_accelerator_nothing_is_measured_while_something_compiles(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(step, "on_cpu", lambda: False)
    made: list[int] = []
    subjects = compile_all(makers(made))
    assert next(subjects) == 0
    assert made == [0, 1, 2]
    assert list(subjects) == [1, 2]


def test_on_a_cpu_each_is_compiled_when_its_turn_comes() -> None:
    made: list[int] = []
    subjects = compile_all(makers(made))
    assert next(subjects) == 0
    assert made == [0]
    assert list(subjects) == [1, 2]

"""Cells drawn by processes: the same, in the same order, and a lost process is an error, never a short data set."""

from __future__ import annotations

import contextlib
import io
import itertools
import subprocess

import numpy as np
import pytest
from PIL import Image

from wbc_jax.data.drawers import draw
from wbc_jax.data.synthetic.render import render_sample
from wbc_jax.errors import DataError


@pytest.mark.parametrize("processes", [1, 3])
def test_drawings_are_the_renderers_in_order(processes: int) -> None:
    numbers = range(5, 12)
    drawings = list(draw(3, numbers, 32, processes))
    assert len(drawings) == len(numbers)
    for number, drawing in zip(numbers, drawings, strict=True):
        cell = render_sample(3, number, 32)
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(drawing.png))), cell.image)
        assert (drawing.cell_class, drawing.attributes) == (cell.cell_class, cell.attributes)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """Every process that is started, in order."""
    processes: list[subprocess.Popen[bytes]] = []

    class Watched(subprocess.Popen):
        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, **kwargs)  # pyright: ignore[reportCallIssue,reportArgumentType]
            processes.append(self)

    monkeypatch.setattr(subprocess, "Popen", Watched)
    return processes


def test_lost_process_is_an_error(started: list[subprocess.Popen[bytes]]) -> None:
    drawings = draw(0, range(100_000), 32, 2)
    next(drawings)
    started[1].kill()
    with pytest.raises(DataError, match="ended early"):
        list(drawings)
    assert [process.poll() is None for process in started] == [False, False]


def test_processes_end_with_the_reader(started: list[subprocess.Popen[bytes]]) -> None:
    """A reader that stops, as on Ctrl-C, leaves no process behind."""
    with contextlib.closing(draw(0, range(100_000), 32, 2)) as drawings:  # pyright: ignore[reportArgumentType]
        assert len(list(itertools.islice(drawings, 3))) == 3
        assert [process.poll() is None for process in started] == [True, True]
    assert [process.poll() is None for process in started] == [False, False]

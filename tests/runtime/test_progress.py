"""Progress without a terminal, with one, and the shares of time."""

from __future__ import annotations

import io
import time

import jax
import jax.numpy as jnp
import pytest
from rich.console import Console

from wbc_jax.runtime.goodput import SHARES, Goodput
from wbc_jax.runtime.progress import TrainProgress, track


def run_progress(terminal: bool, **options: float) -> str:
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=200, force_interactive=terminal)
    with TrainProgress(6, 3, 8, start_step=1, console=console, **options) as progress:  # pyright: ignore[reportArgumentType]
        for step in range(2, 7):
            progress.step(step, wait_share=0.125)
            progress.show({"loss": 1 / step})
        progress.note("best so far")
    return file.getvalue()


def test_without_a_terminal_a_line_comes_at_each_epochs_end() -> None:
    lines = run_progress(False).splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("epoch 1/2  step 3/6  ")
    assert "img/s  loss 0.5000  input wait 12.5%" in lines[0]
    assert lines[1].startswith("epoch 2/2  step 6/6  ")
    assert lines[1].endswith("0:00:00 left")
    assert lines[2] == "best so far"
    assert all("\x1b" not in line for line in lines)


def test_without_a_terminal_lines_come_in_time_too() -> None:
    assert len(run_progress(False, plain_every_s=0.0).splitlines()) == 6


def test_on_a_terminal_a_bar_is_drawn_and_the_cursor_returns() -> None:
    text = run_progress(True)
    assert "step 6/6" in text
    assert "best so far" in text
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1


@pytest.mark.parametrize("terminal", [False, True])
def test_track_yields_everything(terminal: bool) -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=100)
    assert list(track(range(5), "decode [x]", console=console)) == [0, 1, 2, 3, 4]
    assert list(track(iter("ab"), "count", total=None, console=console)) == ["a", "b"]
    assert "decode [x]" in file.getvalue()
    assert ("5/5" if terminal else "decode [x]: 5 of 5") in file.getvalue()


def test_shares_add_up_and_exclude_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    goodput = Goodput()

    def spend(share: str, seconds: float) -> None:
        with goodput.measure(share):
            clock[0] += seconds

    spend("step", 6.0)
    spend("input", 1.0)
    with goodput.measure("evaluate"):
        clock[0] += 1.0
        spend("checkpoint", 1.5)  # inside another share
    clock[0] += 0.5
    assert goodput.seconds() == pytest.approx(
        {"step": 6.0, "input": 1.0, "compile": 0.0, "evaluate": 1.0, "checkpoint": 1.5, "other": 0.5}
    )
    assert goodput.share("input") == pytest.approx(0.1)
    assert goodput.goodput() == pytest.approx(0.7)
    line = goodput.summary_line()
    assert line.startswith("goodput 70.0%")
    assert "input wait 10.0%" in line
    with pytest.raises(ValueError, match="unknown share"), goodput.measure("idle"):
        pass


def test_a_share_ends_with_an_error_too(monkeypatch: pytest.MonkeyPatch) -> None:
    goodput = Goodput()
    with pytest.raises(KeyError), goodput.measure("step"):
        raise KeyError
    before = goodput.seconds()["step"]
    time.sleep(0.01)
    assert goodput.seconds()["step"] == before


def test_compilation_is_taken_out_of_the_step_around_it() -> None:
    goodput = Goodput()
    compiled = jax.jit(lambda x: jnp.sin(x) @ jnp.cos(x).T + 0.125)
    with goodput.measure("step"):
        jax.block_until_ready(compiled(jnp.ones((37, 37))))
    first = goodput.seconds()
    assert first["compile"] > 0.001
    assert set(first) == set(SHARES)
    assert all(value >= 0 for value in first.values())
    with goodput.measure("step"):
        jax.block_until_ready(compiled(jnp.ones((37, 37))))
    assert goodput.seconds()["compile"] == first["compile"]

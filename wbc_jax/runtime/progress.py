"""Progress on a terminal as a bar, elsewhere as a plain line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

T = TypeVar("T")

PLAIN_EVERY_S = 30.0
_RATE_WINDOW_S = 2.0


class TrainProgress:
    """How a training run gets on: epoch, step, images per second, loss, accuracy, input wait, time left.

    Use as a context manager; `step` after each step, `show` when scores were read back.

    Args:
        total_steps, steps_per_epoch, batch_size: of the run.
        start_step: where a resumed run starts.
        plain_every_s: seconds between lines where no bar can be drawn; a line comes at each epoch's end too.
        console: where to write; None: standard output.
    """

    def __init__(
        self,
        total_steps: int,
        steps_per_epoch: int,
        batch_size: int,
        *,
        start_step: int = 0,
        plain_every_s: float = PLAIN_EVERY_S,
        console: Console | None = None,
    ) -> None:
        self._total_steps, self._steps_per_epoch, self._batch_size = total_steps, steps_per_epoch, batch_size
        self._step = self._first_step = start_step
        self._plain_every_s = plain_every_s
        self._console = console or Console(file=sys.stdout)
        self._shown: dict[str, float] = {}
        self._wait_share: float | None = None
        self._rate = _Rate(start_step)
        self._last_line_s = time.monotonic()
        self._bar: Progress | None = None
        self._task: Any = None

    def step(self, step: int, wait_share: float | None = None) -> None:
        """Notes that `step` updates are done; `wait_share`: share of the time spent waiting for input, 0 to 1."""
        self._step = step
        self._wait_share = wait_share if wait_share is not None else self._wait_share
        self._rate.update(step)
        if self._bar is not None:
            self._bar.update(self._task, completed=step, status=self.status())
            return
        now = time.monotonic()
        ends_epoch = step % self._steps_per_epoch == 0 or step == self._total_steps
        if ends_epoch or now - self._last_line_s >= self._plain_every_s:
            self._last_line_s = now
            self._print_plain(f"{self.status()}  {self._time_left()} left")

    def show(self, values: Mapping[str, float]) -> None:
        """Replaces the scores shown, such as `{"loss": 0.31, "accuracy": 0.97}`; takes effect at the next step."""
        self._shown.update(values)

    def note(self, text: str) -> None:
        """Prints a line above the bar."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            self._print_plain(text)

    def status(self) -> str:
        """The line without the time left."""
        epochs = -(-self._total_steps // self._steps_per_epoch)
        epoch = max(1, -(-self._step // self._steps_per_epoch))
        parts = [f"epoch {epoch}/{epochs}", f"step {self._step}/{self._total_steps}"]
        if self._rate.steps_per_s is not None:
            parts.append(f"{self._rate.steps_per_s * self._batch_size:.0f} img/s")
        parts += [f"{name} {value:.4f}" for name, value in self._shown.items()]
        if self._wait_share is not None:
            parts.append(f"input wait {self._wait_share:.1%}")
        return "  ".join(parts)

    def __enter__(self) -> TrainProgress:
        if self._console.is_terminal:
            columns = (BarColumn(bar_width=24), TextColumn("{task.fields[status]}", markup=False))
            self._bar = _bar(self._console, *columns, TimeRemainingColumn())
            self._bar.start()
            self._task = self._bar.add_task(
                "", total=self._total_steps, completed=self._first_step, status=self.status()
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _time_left(self) -> str:
        rate = self._rate.steps_per_s
        return "?" if not rate else _duration((self._total_steps - self._step) / rate)

    def _print_plain(self, text: str) -> None:
        _print_plain(self._console, text)


def track(
    items: Iterable[T],
    description: str,
    total: int | None = None,
    *,
    plain_every_s: float = PLAIN_EVERY_S,
    console: Console | None = None,
) -> Iterator[T]:
    """Yields `items` while showing how many are done; `total` None: `len(items)` where it has one."""
    if total is None:
        total = len(items) if hasattr(items, "__len__") else None  # pyright: ignore[reportArgumentType]
    console = console or Console(file=sys.stdout)
    if console.is_terminal:
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), _CountColumn())
        with _bar(console, *columns, TimeRemainingColumn()) as bar:
            yield from bar.track(items, total=total, description=description)
        return
    start_s = last_s = time.monotonic()
    done = 0
    of = "" if total is None else f" of {total}"
    for item in items:
        yield item
        done += 1
        now = time.monotonic()
        if now - last_s >= plain_every_s:
            last_s = now
            _print_plain(console, f"{description}: {done}{of}")
    _print_plain(console, f"{description}: {done}{of}, {time.monotonic() - start_s:.1f} s")


class _Rate:
    """Steps per second over the last few seconds: dispatch is asynchronous, so single steps mislead."""

    def __init__(self, step: int) -> None:
        self.steps_per_s: float | None = None
        self._mark = (time.monotonic(), step)
        self._first = True

    def update(self, step: int) -> None:
        now = time.monotonic()
        if self._first:  # the first step compiles
            self._first = False
            self._mark = (now, step)
            return
        since_s, since_step = self._mark
        if now - since_s >= _RATE_WINDOW_S or (self.steps_per_s is None and step > since_step):
            self.steps_per_s = (step - since_step) / max(now - since_s, 1e-9)
        if now - since_s >= _RATE_WINDOW_S:
            self._mark = (now, step)


class _CountColumn(ProgressColumn):
    """Done items, and of how many where that is known."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.completed:.0f}" + ("" if task.total is None else f"/{task.total:.0f}"))


def _bar(console: Console, *columns: ProgressColumn) -> Progress:
    return Progress(*columns, console=console, refresh_per_second=4)


def _print_plain(console: Console, text: str) -> None:
    """Unwrapped and at once, for files and pipes."""
    console.file.write(text + "\n")
    console.file.flush()


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"

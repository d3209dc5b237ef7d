"""Synthetic cells drawn by several processes, in order, as PNG.

Processes of their own, not `multiprocessing`: that would import the caller's script anew, and a script without
`if __name__ == "__main__":` would fail for wanting a data set.

`python -m wbc_jax.data.drawers SEED SIZE_PX FIRST COUNT STEP` writes for each cell a line of JSON and the PNG to
its standard output.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import NamedTuple

from PIL import Image
from threadpoolctl import ThreadpoolController

from wbc_jax.data.synthetic.render import render_sample
from wbc_jax.errors import DataError
from wbc_jax.runtime.cpus import usable_cpus

_CELLS_PER_PROCESS = 100
"""At least, so that a process draws for longer than it starts."""


class Drawing(NamedTuple):
    """PNG bytes of one cell, its class and its attributes as value indices."""

    png: bytes
    cell_class: str
    attributes: tuple[int, ...]


def draw(seed: int, numbers: range, size_px: int, processes: int | None = None) -> Iterator[Drawing]:
    """Samples `numbers` of the data set `seed`, in order; the same for any number of processes.

    Args:
        seed: of the data set.
        numbers: consecutive sample numbers.
        size_px: side of the square images.
        processes: None: one per processor where the work is worth it.

    Raises:
        DataError: a process ended early.
    """
    if processes is None:
        processes = min(usable_cpus(), len(numbers) // _CELLS_PER_PROCESS)
    if processes < 2:
        yield from _draw_here(seed, numbers, size_px)
        return
    with contextlib.ExitStack() as stack:
        # Cells are dealt round; a drawer that is ahead waits until its pipe is read.
        drawers = [
            stack.enter_context(_drawer(seed, numbers[k::processes], size_px)) for k in range(processes)
        ]
        for position in range(len(numbers)):
            yield _received(drawers[position % processes])


def _received(drawer: subprocess.Popen[bytes]) -> Drawing:
    """A drawer's next cell; DataError where there is none, or half of one."""
    assert drawer.stdout is not None
    line = drawer.stdout.readline()
    if line.endswith(b"\n"):
        header = json.loads(line)
        png = drawer.stdout.read(header["bytes"])
        if len(png) == header["bytes"]:
            return Drawing(png, header["cell_class"], tuple(header["attributes"]))
    raise DataError(
        "a process that draws cells ended early",
        expected="processes that live until all cells are drawn",
        remedy="memory may be short: free some and start again",
    )


def _draw_here(seed: int, numbers: range, size_px: int) -> Iterator[Drawing]:
    blas = ThreadpoolController()
    for number in numbers:
        # The renderer's products are tiny: BLAS threads gain nothing and wait for one another on a busy machine
        # (58 ms instead of 6 ms a picture on 2 loaded cores).
        with blas.limit(limits=1):
            cell = render_sample(seed, number, size_px)
        buffer = io.BytesIO()
        Image.fromarray(cell.image).save(buffer, format="PNG")
        yield Drawing(buffer.getvalue(), cell.cell_class, tuple(cell.attributes))


@contextlib.contextmanager
def _drawer(seed: int, numbers: range, size_px: int) -> Iterator[subprocess.Popen[bytes]]:
    """A process that draws these cells; it ends with the block."""
    arguments = (seed, size_px, numbers.start, len(numbers), numbers.step)
    with subprocess.Popen(
        [sys.executable, "-m", "wbc_jax.data.drawers", *map(str, arguments)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        start_new_session=True,  # the terminal's Ctrl-C goes to the parent alone, which says what happens
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _main() -> None:
    seed, size_px, first, count, step = map(int, sys.argv[1:])
    numbers = range(first, first + count * step, step)
    # A parent that is gone closes the pipe; there is nobody left to tell.
    with contextlib.suppress(BrokenPipeError):
        for drawing in _draw_here(seed, numbers, size_px):
            png, cell_class, attributes = drawing
            header = {"bytes": len(png), "cell_class": cell_class, "attributes": attributes}
            sys.stdout.buffer.write(json.dumps(header).encode() + b"\n" + png)
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    _main()

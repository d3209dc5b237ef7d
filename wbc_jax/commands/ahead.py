"""Programs of a run compiled before its first step, side by side."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax

from wbc_jax.commands.parts import Parts
from wbc_jax.data.experiment import Samples
from wbc_jax.data.stream import eval_stream
from wbc_jax.train.parallel import split_by_row
from wbc_jax.train.state import TrainState, variables_for_eval

Batches = Callable[[int], Iterator[tuple[Any, ...]]]


def compile_ahead(
    parts: Parts, state: TrainState, step: int, validation: Samples, eval_batch_size: int
) -> tuple[Batches, dict[str, float]]:
    """Compiles the training step of every image size to come and the evaluation step, each in a thread.

    XLA lets go of Python's lock. Neither validation nor a later size then waits for a compiler in the middle of the
    run. All are waited for: with a core for each they take as long as the longest, on two cores 11 s in place of 6
    (recipe `speed`, November 2026). Training meanwhile would have to share those cores, or the GPU on which the
    compiler times kernels to choose among them. With several processes, under pmap or without anything left to train
    nothing is done, and each step is compiled when it is called.

    Args:
        parts: of the run.
        state: that the run starts from.
        step: its position.
        validation: samples that are evaluated.
        eval_batch_size: images per evaluation step.

    Returns:
        `parts.batches`, with the first batch of `step` kept for its use; seconds that each program took:
        `evaluate`, and `train` or, where there are several sizes, `train_128px` and the like.
    """
    sizes_px = parts.sizes_from(step)
    if jax.process_count() > 1 or not parts.train_step.compiles_ahead or not sizes_px:
        return parts.batches, {}
    source = parts.batches(step)
    first = next(source)
    programs: dict[str, Callable[[], None]] = {}
    for size_px in sizes_px:  # a batch is the same for all: it is the step that shrinks it
        name = "train" if len(sizes_px) == 1 else f"train_{size_px}px"
        programs[name] = partial(parts.train_step.compile_for, state, size_px, *first[1:])
    batch = next(_evaluated(parts, validation, eval_batch_size), None)
    if batch is not None:
        programs["evaluate"] = partial(parts.eval_step.compile_for, variables_for_eval(state), batch)
    with ThreadPoolExecutor(len(programs)) as pool:
        seconds = dict(zip(programs, pool.map(_timed, programs.values()), strict=True))

    def batches(begin: int) -> Iterator[tuple[Any, ...]]:
        return itertools.chain((first,), source) if begin == step else parts.batches(begin)

    return batches, seconds


def _evaluated(parts: Parts, samples: Samples, batch_size: int) -> Iterator[Any]:
    fields = (samples.store, samples.rows, samples.labels, samples.attributes, batch_size)
    return eval_stream(*fields, sharding=split_by_row(parts.mesh))


def _timed(compile_program: Callable[[], None]) -> float:
    start = time.perf_counter()
    compile_program()
    return time.perf_counter() - start

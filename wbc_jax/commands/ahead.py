"""Programs of a run compiled before its first step, side by side."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
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
    """Compiles the training and the evaluation step, each in a thread: XLA lets go of Python's lock.

    Validation then does not wait for a compiler at the end of the first epoch. With several processes, under pmap or
    without anything left to train nothing is done, and each step is compiled when it is called.

    Args:
        parts: of the run.
        state: that the run starts from.
        step: its position.
        validation: samples that are evaluated.
        eval_batch_size: images per evaluation step.

    Returns:
        `parts.batches`, with the first batch of `step` kept for its use; seconds that each program took.
    """
    if jax.process_count() > 1 or not parts.train_step.compiles_ahead:
        return parts.batches, {}
    source = parts.batches(step)
    first = next(source, None)
    if first is None:
        return parts.batches, {}
    programs = {"train": lambda: parts.train_step.compile_for(state, *first)}
    batch = next(_evaluated(parts, validation, eval_batch_size), None)
    if batch is not None:
        programs["evaluate"] = lambda: parts.eval_step.compile_for(variables_for_eval(state), batch)
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

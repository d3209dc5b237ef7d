"""`wbc-jax reproduce`: the tables and figures of a paper, ours beside the published numbers."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from rich.console import Console

from wbc_jax.data.registry import dataset_info
from wbc_jax.errors import EXIT_OK, UsageError
from wbc_jax.reproduce.budget import BUDGETS, Budget, BudgetName
from wbc_jax.reproduce.drawing import draw, heading, write_index
from wbc_jax.reproduce.estimate import listing
from wbc_jax.reproduce.exhibit import Exhibit
from wbc_jax.reproduce.outcome import Context, RowOutcome, row_outcome
from wbc_jax.reproduce.plan import LeftOut, Places, PlannedRun, Planner
from wbc_jax.reproduce.registry import find_exhibits
from wbc_jax.reproduce.runs import Runs, StoppedError

_OLDER_EMITTERS = "--xla_cpu_use_fusion_emitters=false"
"""Compile faster; only jaxlib 0.10 still has them. XLA reads its flags once, when it is first used."""


@dataclass(frozen=True, kw_only=True)
class ReproduceOptions:
    """Options of `wbc-jax reproduce`."""

    budget: BudgetName = "small"
    """smoke: small networks on a handful of images, to test the machinery; small: full networks at 128 px, a third of
    the epochs; paper: the papers' size."""
    list: bool = False
    """List the tables and figures with their runs and the time they need; run nothing."""
    out: Path = Path("reproductions")
    """Folder for documents, one subfolder a paper and budget, and for `runs/`."""
    raw_dir: Path | None = None
    """Folder that holds the original data sets; None: $WBC_DATA_DIR."""
    cache_dir: Path | None = None
    """Folder for prepared stores; None: $WBC_CACHE_DIR, else the user's cache directory."""
    weights_dir: Path | None = None
    """Folder with ImageNet weights under torchvision's file names, or <network>.safetensors; None: random weights, and
    the arms about pretraining are left out."""
    seeds: int | None = None
    """Runs of each arm, with seeds 0, 1, …; None: the budget's (smoke 1, small 2, paper 3)."""
    stand_in: str | None = None
    """Data set that takes the place of one that is not here; None: of the smoke budget the embedded one, otherwise such
    rows are left out."""


def reproduce(paper: str, keys: tuple[str, ...], options: ReproduceOptions) -> int:
    """Makes the runs that the exhibits need and draws them; returns the exit code.

    Runs that are finished are used as they are, an interrupted one goes on.

    Args:
        paper: scam, daffnet or amnet.
        keys: exhibits such as table4; empty: all.
        options: see there.

    Raises:
        UsageError: an unknown paper, exhibit or data set, or options that cannot be.
    """
    exhibits = find_exhibits(paper, keys)
    places = Places(raw_dir=options.raw_dir, cache_dir=options.cache_dir, weights_dir=options.weights_dir)
    planner = Planner(budget=_budget(options), places=places)
    runs = Runs(folder=options.out / "runs")
    if options.list:
        Console().print(listing(exhibits, planner, runs))
        return EXIT_OK
    try:
        with _compiling(planner.budget):
            _make_all(planner.plan(exhibits), runs)
    except StoppedError as stopped:
        print("interrupted, what was reached is saved; the same command goes on")
        return stopped.exit_code
    folder = options.out / f"{paper}-{planner.budget.name}"
    folder.mkdir(parents=True, exist_ok=True)
    _draw_all(exhibits, planner, runs, folder)
    return EXIT_OK


def _budget(options: ReproduceOptions) -> Budget:
    if options.seeds is not None and options.seeds < 1:
        raise UsageError(f"seeds {options.seeds}: must be 1 or more", where="wbc-jax reproduce")
    budget = BUDGETS[options.budget]
    if options.stand_in is not None:
        dataset_info(options.stand_in)
    return dataclasses.replace(
        budget, seeds=options.seeds or budget.seeds, stand_in=options.stand_in or budget.stand_in
    )


@contextlib.contextmanager
def _compiling(budget: Budget) -> Iterator[None]:
    """Sets how programs are compiled, for the runs of the budget only."""
    import jax

    optimised_little = jax.config.read("jax_disable_most_optimizations")
    flags = os.environ.get("XLA_FLAGS")
    if budget.quick_compile:
        jax.config.update("jax_disable_most_optimizations", True)
        if version("jaxlib").startswith("0.10."):
            os.environ["XLA_FLAGS"] = " ".join(filter(None, (flags, _OLDER_EMITTERS)))
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", optimised_little)
        if flags is None:
            os.environ.pop("XLA_FLAGS", None)
        else:
            os.environ["XLA_FLAGS"] = flags


def _make_all(plans: list[PlannedRun], runs: Runs) -> None:
    """Every run, one after the other, each with a line of its own."""
    for number, plan in enumerate(plans, start=1):
        where = f"[{number}/{len(plans)}] {plan.name}"
        if runs.known(plan) is None:
            print(f"{where}: training …", flush=True)
        done = runs.ensure(plan)
        if isinstance(done, LeftOut):
            print(f"{where}: left out: {done.reason}", flush=True)
        else:
            took = f"{done.seconds:.0f} s" if done.seconds else "finished before"
            print(f"{where}: test accuracy {done.metrics['test.accuracy']:.4f} ({took})", flush=True)


def _draw_all(exhibits: tuple[Exhibit, ...], planner: Planner, runs: Runs, folder: Path) -> None:
    start, files = time.monotonic(), []
    for exhibit in exhibits:
        outcomes: tuple[RowOutcome, ...] = ()
        if exhibit.arms_are_run():
            outcomes = tuple(row_outcome(row, planner, runs) for row in exhibit.rows)
        context = Context(exhibit=exhibit, outcomes=outcomes, folder=folder, planner=planner, runs=runs)
        files.append(draw(context))
        print(f"{heading(exhibit)}: {files[-1]}", flush=True)
    write_index(folder / "README.md", exhibits[0].paper, planner.budget, exhibits, files)
    print(
        f"{len(files)} exhibits drawn in {time.monotonic() - start:.0f} s; start with {folder / 'README.md'}"
    )

"""`wbc-jax compare-runs`: two runs on the same test images, compared image by image."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from wbc_jax.errors import EXIT_OK, DataError, UsageError
from wbc_jax.evaluate.predictions import LabelledPredictions, read_predictions
from wbc_jax.evaluate.statistics import McNemar, mcnemar, paired_bootstrap
from wbc_jax.runtime.json_files import write_json
from wbc_jax.runtime.rundir import resolve_run_dir

_SHOWN = (
    ("accuracy", "accuracy"),
    ("balanced_accuracy", "balanced accuracy"),
    ("macro_f1", "macro F1"),
    ("weighted_f1", "weighted F1"),
)


@dataclass(frozen=True, kw_only=True)
class CompareRunsOptions:
    """Options of `wbc-jax compare-runs`."""

    split: str = "test"
    """Part whose predictions are compared: RUN/predictions/<split>.csv."""
    bootstrap_samples: int = 10_000
    """Resamples behind the intervals."""
    out: Path | None = None
    """JSON file for the figures; None: printed only."""


def compare_runs(run_a: Path, run_b: Path, options: CompareRunsOptions) -> int:
    """Prints differences with intervals, and McNemar's test; returns the exit code.

    Args:
        run_a, run_b: run directories, or predictions files with a `label` column.
        options: see there.

    Raises:
        UsageError: no predictions there, or options that cannot be.
        DataError: the two are not about the same images, labels and classes.
    """
    if options.bootstrap_samples < 1:
        raise UsageError(
            f"bootstrap_samples {options.bootstrap_samples}: must be 1 or more", where="compare-runs"
        )
    a, b = (read_predictions(_predictions_file(run, options.split)) for run in (run_a, run_b))
    b = align(a, b, run_a, run_b)
    test = mcnemar(a.predicted == a.labels, b.predicted == b.labels)
    gaps = paired_bootstrap(
        a.labels, a.predicted, b.predicted, len(a.class_names), samples=options.bootstrap_samples
    )
    _print(run_a, run_b, len(a.labels), test, gaps)
    if options.out is not None:
        facts: dict[str, Any] = {"a": str(run_a), "b": str(run_b), "split": options.split}
        facts |= {"images": len(a.labels), "mcnemar": asdict(test)}
        facts |= {"a_minus_b": {name: asdict(gap) for name, gap in gaps.items()}}
        write_json(options.out, facts)
    return EXIT_OK


def _predictions_file(run: Path, split: str) -> Path:
    path = run if run.is_file() else resolve_run_dir(run) / "predictions" / f"{split}.csv"
    if not path.is_file():
        raise UsageError(
            f"no predictions in {run}",
            expected=f"a run directory with predictions/{split}.csv, or a predictions file",
            where=str(path),
            remedy="train the run to its end, or score it with `wbc-jax evaluate`",
        )
    return path


def align(a: LabelledPredictions, b: LabelledPredictions, run_a: Path, run_b: Path) -> LabelledPredictions:
    """`b` in the order of `a`'s images; DataError where they do not cover the same ground."""
    if a.class_names != b.class_names:
        raise DataError(
            f"{run_b} has the classes {', '.join(b.class_names)}",
            expected=f"those of {run_a}: {', '.join(a.class_names)}",
            remedy="compare runs of one task",
        )
    rows = {path: i for i, path in enumerate(b.paths)}
    missing = [path for path in a.paths if path not in rows]
    if missing or len(a.paths) != len(b.paths):
        raise DataError(
            f"{len(missing)} of the {len(a.paths)} images of {run_a} are not among the {len(b.paths)} of {run_b}",
            expected="predictions on the same images",
            remedy="use the same data set, split and split seed, or score both with `wbc-jax evaluate`",
        )
    order = np.asarray([rows[path] for path in a.paths])
    if (a.labels != b.labels[order]).any():
        raise DataError("the two runs disagree about the true classes", where=f"{run_a}, {run_b}")
    return b.take(order)


def _print(run_a: Path, run_b: Path, images: int, test: McNemar, gaps: dict[str, Any]) -> None:
    table = Table("score", "A - B, points", "95 % interval", "verdict", title_justify="left")
    table.title = f"A: {run_a}\nB: {run_b}\n{images} images"
    for name, label in _SHOWN:
        gap = gaps[name]
        verdict = "no difference shown" if gap.low <= 0 <= gap.high else "a difference"
        interval = f"{100 * gap.low:+.2f} to {100 * gap.high:+.2f}"
        table.add_row(label, f"{100 * gap.value:+.2f}", interval, verdict)
    console = Console()
    console.print(table)
    console.print(
        f"right: both {test.both}, only A {test.only_a}, only B {test.only_b}, neither {test.neither}; "
        f"McNemar exact p = {test.exact_p:.4g}, chi-square {test.chi_square:.3f} (p = {test.chi_square_p:.4g})"
    )

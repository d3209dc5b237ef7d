"""The runs behind one exhibit, row by row, as the drawings take them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wbc_jax.reproduce.budget import Budget
from wbc_jax.reproduce.exhibit import Exhibit, Row
from wbc_jax.reproduce.plan import LeftOut, Planner
from wbc_jax.reproduce.runs import FinishedRun, Runs


@dataclass(frozen=True, kw_only=True)
class RowOutcome:
    """A row with the runs of its arm.

    Attributes:
        row: of the exhibit.
        runs: one a seed; empty: nothing to run, or left out.
        reason: why it was left out; "": it was not.
    """

    row: Row
    runs: tuple[FinishedRun, ...] = ()
    reason: str = ""

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """metrics.json of each seed."""
        return [run.metrics for run in self.runs]

    @property
    def stand_in(self) -> str | None:
        """Data set that stood in for the row's own; None: none did."""
        return self.runs[0].plan.stand_in if self.runs else None


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """What an exhibit became: text for the document, and files that belong to it.

    Attributes:
        markdown: everything below the title.
        files: what was written.
    """

    markdown: str
    files: tuple[Path, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Context:
    """Everything that a drawing may look at.

    Attributes:
        exhibit: what is drawn.
        outcomes: its rows, in order.
        folder: where files of the exhibit go.
        planner: knows budget, places, and what is absent.
        runs: run directories.
    """

    exhibit: Exhibit
    outcomes: tuple[RowOutcome, ...]
    folder: Path
    planner: Planner
    runs: Runs

    @property
    def budget(self) -> Budget:
        """The budget."""
        return self.planner.budget

    def path(self, suffix: str) -> Path:
        """A file of the exhibit, such as `.png`."""
        return self.folder / f"{self.exhibit.key}{suffix}"

    def finished(self) -> tuple[RowOutcome, ...]:
        """Rows that have runs."""
        return tuple(outcome for outcome in self.outcomes if outcome.runs)


def row_outcome(row: Row, planner: Planner, runs: Runs) -> RowOutcome:
    """Makes or finds the runs of a row's arm, one a seed."""
    if row.arm is None:
        return RowOutcome(row=row)
    made: list[FinishedRun] = []
    for seed in planner.seeds():
        plan = planner.resolve(row.arm, seed)
        run = plan if isinstance(plan, LeftOut) else runs.ensure(plan)
        if isinstance(run, LeftOut):
            return RowOutcome(row=row, reason=run.reason)
        made.append(run)
    return RowOutcome(row=row, runs=tuple(made))

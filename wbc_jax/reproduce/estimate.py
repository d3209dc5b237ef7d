"""What exhibits need before anything is run: runs, absent data, and time as far as finished runs tell."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from rich.table import Table

from wbc_jax.commands.run import CONFIG_FILE
from wbc_jax.config import Config
from wbc_jax.config_json import from_json
from wbc_jax.data.registry import DATASETS
from wbc_jax.reproduce.exhibit import Exhibit
from wbc_jax.reproduce.plan import LeftOut, PlannedRun, Planner
from wbc_jax.reproduce.runs import Runs

_TRAIN_SHARE = 0.6


def listing(exhibits: Sequence[Exhibit], planner: Planner, runs: Runs) -> Table:
    """A line an exhibit: its runs, how many are finished, the time of the others, and what is left out."""
    table = Table("exhibit", "shows", "runs", "finished", "time left", "left out or stood in for", box=None)
    seconds = _TimePerRun(runs)
    for exhibit in exhibits:
        plans = planner.plan([exhibit])
        open_plans = [plan for plan in plans if runs.known(plan) is None]
        table.add_row(
            exhibit.key,
            exhibit.title,
            str(len(plans)),
            str(len(plans) - len(open_plans)),
            seconds.in_words(open_plans),
            _left_out(exhibit, planner),
        )
    everything = planner.plan(exhibits)
    todo = [plan for plan in everything if runs.known(plan) is None]
    table.add_row(
        "all",
        "each run once",
        str(len(everything)),
        str(len(everything) - len(todo)),
        seconds.in_words(todo),
        "",
    )
    return table


def _left_out(exhibit: Exhibit, planner: Planner) -> str:
    found: dict[str, None] = {}
    for arm in exhibit.arms():
        plan = planner.resolve(arm, 0)
        if isinstance(plan, LeftOut):
            found[plan.reason.partition(";")[0]] = None
        elif plan.stand_in is not None:
            found[f"{arm.dataset} is not here: {plan.stand_in} stands in"] = None
    for name in exhibit.datasets:
        if planner.absence(name) is not None:
            found[f"{name} is not here"] = None
    return "\n".join(found)


class _TimePerRun:
    """Seconds of a run, by finished runs of the same network and image size below the same folder."""

    def __init__(self, runs: Runs) -> None:
        self._rates: dict[tuple[str, int], list[float]] = {}
        for directory, seconds in runs.costs():
            config = from_json((directory / CONFIG_FILE).read_text(), where=str(directory / CONFIG_FILE))
            self._rates.setdefault(_kind(config), []).append(seconds / _images(config))

    def in_words(self, plans: Sequence[PlannedRun]) -> str:
        """`12 min`; says so where no such run has been timed."""
        known = [(plan, self._rates.get(_kind(plan.config))) for plan in plans]
        total = sum(statistics.median(rates) * _images(plan.config) for plan, rates in known if rates)
        untimed = sum(1 for _, rates in known if not rates)
        if not plans:
            return "none"
        text = _duration(total) if untimed < len(plans) else ""
        unknown = f"{untimed} runs not timed yet" if untimed else ""
        return ", ".join(part for part in (text, unknown) if part)


def _kind(config: Config) -> tuple[str, int]:
    return config.model.name, config.data.image_size_px


def _images(config: Config) -> float:
    """Training images over all epochs, roughly: enough to scale a time by."""
    facts = DATASETS[config.data.dataset]
    images = _TRAIN_SHARE * (facts.expected_total or sum(facts.expected.values()) or 1000)
    if config.data.max_images_per_class is not None:
        images = min(images, config.data.max_images_per_class * max(1, len(facts.classes)))
    return images * config.train.epochs


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

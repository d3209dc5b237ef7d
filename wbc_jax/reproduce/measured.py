"""What the runs of one arm measured, by the names that exhibits use, in percent with 95 % intervals.

Names: `accuracy` and the other overall scores; `<class>.recall` and the like, `total.recall` for the whole set;
`<attribute>.f1`, `overall.f1` for the mean over attributes, `subset_accuracy`, `hamming_loss`, `jaccard`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wbc_jax.evaluate.statistics import mean_interval, wilson

_TOTALS = {"recall": "accuracy", "precision": "weighted_precision", "f1": "weighted_f1", "auc": "auc_macro"}


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A score of one arm, percent.

    Attributes:
        value: of one seed, or the mean over seeds.
        low, high: 95 % interval, over test images for one seed, over seeds otherwise; None: none can be given.
        hits, total: images right of images tested, of the first seed; None where the score is no such share.
    """

    value: float
    low: float | None = None
    high: float | None = None
    hits: int | None = None
    total: int | None = None


def estimate(metrics: Sequence[Mapping[str, Any]], name: str) -> Estimate | None:
    """A score over the metrics of an arm's seeds; None where a run does not have it.

    Args:
        metrics: metrics.json of each seed.
        name: as above.
    """
    found = [_single(one, name) for one in metrics]
    known = [one for one in found if one is not None]
    if not known or len(known) < len(metrics):
        return None
    if len(known) == 1:
        return known[0]
    over_seeds = mean_interval([one.value for one in known])
    return Estimate(
        value=over_seeds.value,
        low=over_seeds.low,
        high=over_seeds.high,
        hits=known[0].hits,
        total=known[0].total,
    )


def class_names(metrics: Mapping[str, Any]) -> tuple[str, ...]:
    """Classes of a run's test set, in the order of its outputs."""
    return tuple(metrics["test"]["per_class"])


def _single(metrics: Mapping[str, Any], name: str) -> Estimate | None:
    test = metrics["test"]
    group, _, score = name.rpartition(".")
    attributes = test.get("attributes")
    if group == "total":
        return _from(test, _TOTALS[score], test["hits"], test["count"])
    if group in test["per_class"]:
        return _of_class(test["per_class"][group], score)
    if group == "":
        if name in test["overall"]:
            return _from(test, name, test["hits"], test["count"])
        return None if attributes is None else _from(attributes, name)
    if attributes is None:
        return None
    if group == "overall":
        return _from(attributes, f"attribute_{score}")
    value = attributes["per_attribute"].get(group, {}).get(score)
    return None if value is None else Estimate(value=100 * value)


def _from(
    part: Mapping[str, Any], name: str, hits: int | None = None, total: int | None = None
) -> Estimate | None:
    value = part["overall"].get(name)
    if value is None:
        return None
    low, high = part["intervals_95"].get(name, (None, None))
    is_share = name == "accuracy"
    return Estimate(
        value=100 * value,
        low=None if low is None else 100 * low,
        high=None if high is None else 100 * high,
        hits=hits if is_share else None,
        total=total if is_share else None,
    )


def _of_class(row: Mapping[str, Any], score: str) -> Estimate | None:
    value, support = row.get(score), int(row["support"])
    if value is None:
        return None
    if score != "recall" or not support:
        return Estimate(value=100 * value)
    hits = round(value * support)
    share = wilson(hits, support)
    return Estimate(value=100 * value, low=100 * share.low, high=100 * share.high, hits=hits, total=support)

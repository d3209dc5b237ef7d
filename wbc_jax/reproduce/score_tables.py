"""Tables of scores: ours with its interval, the published value and the difference, as Markdown and CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wbc_jax.catalog import ATTRIBUTE_NAMES
from wbc_jax.reproduce.measured import Estimate, class_names, estimate
from wbc_jax.reproduce.outcome import Context, Drawing, RowOutcome
from wbc_jax.reproduce.verdicts import verdict_lines

SCORE_TITLES = {
    "accuracy": "accuracy",
    "average_precision_rate": "AP",
    "average_recall": "AR",
    "af1_harmonic": "AF1 (harmonic)",
    "macro_f1": "AF1 (mean of F1)",
    "weighted_precision": "precision",
    "weighted_recall": "recall",
    "weighted_f1": "F1",
    "hard_auc_weighted": '"AUC" (hard)',
    "hard_auc": '"AUC" (hard)',
    "subset_accuracy": "SAcc",
    "hamming_loss": "HL",
    "jaccard": "JS",
    "auc": "AUC",
    "f1": "F1",
}
CSV_COLUMNS = (
    "exhibit", "group", "row", "score", "published", "ours", "low_95", "high_95", "difference", "hits", "total",
    "seeds", "data_set", "note", "runs",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a table: cells by the names of their scores, None for an empty one."""

    label: str
    outcome: RowOutcome
    names: tuple[str, ...]


def draw_scores(context: Context) -> Drawing:
    """A line a row, a column a score."""
    scores = context.exhibit.scores
    lines = [Line(label=o.row.label, outcome=o, names=scores) for o in context.outcomes]
    return _draw(
        context, [SCORE_TITLES.get(s, s) for s in (n.removeprefix("overall.") for n in scores)], lines
    )


def draw_classes(context: Context) -> Drawing:
    """Scores of each class: a column a class for one score, else a line a class."""
    scores, total = context.exhibit.scores, "total"
    if len(scores) == 1:
        names = _all_classes(context.outcomes)
        keys = tuple(f"{name}.{scores[0]}" for name in (*names, total))
        lines = [Line(label=o.row.label, outcome=o, names=keys) for o in context.outcomes]
        return _draw(context, [*names, total], lines)
    lines = [
        Line(label=f"{o.row.label}: {name}", outcome=o, names=tuple(f"{name}.{s}" for s in scores))
        for o in context.outcomes
        for name in (*_all_classes((o,)), total)
    ]
    return _draw(context, [SCORE_TITLES.get(s, s) for s in scores], lines)


def draw_attributes(context: Context) -> Drawing:
    """Scores of each attribute and their mean, a line each; of several strategies the strategy's name in front."""
    scores = context.exhibit.scores
    several = len(context.outcomes) > 1
    lines = [
        Line(
            label=f"{o.row.label}: {name}" if several else name,
            outcome=o,
            names=tuple(f"{name}.{s}" for s in scores),
        )
        for o in context.outcomes
        for name in (*ATTRIBUTE_NAMES, "overall")
    ]
    return _draw(context, [SCORE_TITLES.get(s, s) for s in scores], lines)


def _all_classes(outcomes: tuple[RowOutcome, ...]) -> tuple[str, ...]:
    """Classes in the order of the first run that has them; of rows without a run those that the paper prints."""
    found: dict[str, None] = {}
    for outcome in outcomes:
        names = class_names(outcome.metrics[0]) if outcome.runs else ()
        printed = (key.rpartition(".")[0] for key in outcome.row.published)
        for name in (*names, *(n for n in printed if n and n != "total")):
            found[name] = None
    return tuple(found)


def _draw(context: Context, columns: list[str], lines: list[Line]) -> Drawing:
    csv_path = context.path(".csv")
    _write_csv(context, lines, csv_path)
    grouped = any(line.outcome.row.group for line in lines)
    header = [*(["data set"] if grouped else []), "", *columns]
    body = [
        [*([line.outcome.row.group] if grouped else []), _label(line), *_cells(line, len(columns))]
        for line in lines
    ]
    parts = [_markdown(header, body), _legend(context)]
    parts += left_out_notes(context.outcomes)
    parts += verdict_lines(context)
    return Drawing(markdown="\n\n".join(part for part in parts if part), files=(csv_path,))


def _label(line: Line) -> str:
    text = f"**{line.label}**" if line.outcome.row.ours else line.label
    return text if not line.outcome.stand_in else f"{text} (stand-in)"


def _cells(line: Line, columns: int) -> list[str]:
    if line.outcome.reason and not line.outcome.row.published:
        return ["not run", *[""] * (columns - 1)]
    metrics = line.outcome.metrics
    return [
        _cell(estimate(metrics, n) if metrics else None, line.outcome.row.published.get(n))
        for n in line.names
    ]


def _cell(ours: Estimate | None, published: float | None) -> str:
    """`97.50 (96.1 to 98.6)` over `paper 98.06 (-0.56)`."""
    text = []
    if ours is not None:
        interval = "" if ours.low is None else f" ({ours.low:.1f} to {ours.high:.1f})"
        text.append(f"{ours.value:.2f}{interval}")
    if published is not None:
        gap = "" if ours is None else f" ({ours.value - published:+.2f})"
        text.append(f"paper {published:.2f}{gap}")
    return "<br>".join(text)


def _legend(context: Context) -> str:
    if not context.finished():
        return ""
    first = context.finished()[0]
    seeds = len(first.runs)
    over = "over test images (bootstrap)" if seeds == 1 else f"of the mean over {seeds} seeds (t)"
    return (
        f"Percent; in brackets the 95 % interval {over}, and behind a published value ours minus the paper's. Hits, "
        "totals, seeds and run directories stand in the CSV."
    )


def left_out_notes(outcomes: tuple[RowOutcome, ...]) -> list[str]:
    """Why rows were left out, each reason once."""
    reasons: dict[str, list[str]] = {}
    for outcome in outcomes:
        if outcome.reason:
            reasons.setdefault(outcome.reason, []).append(outcome.row.label)
    return [f"Not run ({', '.join(dict.fromkeys(labels))}): {reason}." for reason, labels in reasons.items()]


def _markdown(header: list[str], body: list[list[str]]) -> str:
    rows = [header, ["---"] * len(header), *body]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows)


def _write_csv(context: Context, lines: list[Line], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer: csv.DictWriter[str] = csv.DictWriter(file, CSV_COLUMNS, restval="")
        writer.writeheader()
        for line in lines:
            writer.writerows(_records(context, line))


def _records(context: Context, line: Line) -> Iterator[dict[str, Any]]:
    """A record a score that is published or measured; one record for a row that has neither."""
    outcome = line.outcome
    common: dict[str, Any] = {
        "exhibit": f"{context.exhibit.paper} {context.exhibit.key}",
        "group": outcome.row.group,
        "row": line.label,
        "seeds": len(outcome.runs) or "",
        "data_set": outcome.runs[0].plan.config.data.dataset if outcome.runs else "",
        "note": outcome.reason or ("stand-in" if outcome.stand_in else ""),
        "runs": " ".join(run.directory.name for run in outcome.runs),
    }
    empty = True
    for name in line.names:
        ours = estimate(outcome.metrics, name) if outcome.runs else None
        published = outcome.row.published.get(name)
        if ours is None and published is None:
            continue
        empty = False
        yield {**common, "score": name, **_numbers(ours, published)}
    if empty:
        yield common


def _numbers(ours: Estimate | None, published: float | None) -> dict[str, Any]:
    numbers: dict[str, Any] = {"published": "" if published is None else f"{published:.2f}"}
    if ours is None:
        return numbers
    numbers["ours"] = f"{ours.value:.4f}"
    if ours.low is not None and ours.high is not None:
        numbers |= {"low_95": f"{ours.low:.4f}", "high_95": f"{ours.high:.4f}"}
    if published is not None:
        numbers["difference"] = f"{ours.value - published:+.4f}"
    if ours.total is not None:
        numbers |= {"hits": ours.hits, "total": ours.total}
    return numbers

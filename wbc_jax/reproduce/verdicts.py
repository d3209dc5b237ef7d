"""Sentences that say which gaps of a table are more than chance: the published ones, and ours image by image."""

from __future__ import annotations

from collections.abc import Iterator

from wbc_jax.commands.compare_runs import align
from wbc_jax.errors import DataError
from wbc_jax.evaluate.predictions import read_predictions
from wbc_jax.evaluate.statistics import difference_of_shares, gap_sentence, mcnemar, paired_bootstrap
from wbc_jax.reproduce.exhibit import Row
from wbc_jax.reproduce.outcome import Context, RowOutcome

_SAMPLES = 2_000


def verdict_lines(context: Context) -> list[str]:
    """Markdown paragraphs; none where a table has no row of the paper's own method."""
    lines: list[str] = []
    for group in dict.fromkeys(o.row.group for o in context.outcomes):
        members = [o for o in context.outcomes if o.row.group == group]
        lead = next((o for o in members if o.row.ours), None)
        if lead is None:
            continue
        others = [o for o in members if o is not lead]
        found = [*published_verdict(lead.row, [o.row for o in others]), *_own_verdict(lead, others)]
        title = f"**{group}.** " if group and found else ""
        lines += [title + found[0], *found[1:]] if found else []
    return lines


def published_verdict(lead: Row, others: list[Row]) -> Iterator[str]:
    """On the published accuracies: the runner-up in full, the number of gaps within noise."""
    rivals = [row for row in others if _accuracy(row) is not None]
    total, own = lead.test_images, _accuracy(lead)
    if not rivals or total is None or own is None:
        return
    best = max(rivals, key=lambda row: _accuracy(row) or 0.0)
    yield "Published: " + gap_sentence(lead.label, own, best.label, _accuracy(best) or 0.0, total)
    noise = [row.label for row in rivals if _within_noise(own, _accuracy(row) or 0.0, total)]
    if len(rivals) > 1:
        named = f": {', '.join(noise)}" if noise else ""
        yield f"Of the {len(rivals)} published gaps to {lead.label}, {len(noise)} are within noise{named}."


def _accuracy(row: Row) -> float | None:
    return row.published.get("accuracy", row.published.get("total.recall"))


def _within_noise(a: float, b: float, total: int) -> bool:
    gap = difference_of_shares(round(a * total / 100), total, round(b * total / 100), total)
    return gap.low <= 0 <= gap.high


def _own_verdict(lead: RowOutcome, others: list[RowOutcome]) -> Iterator[str]:
    """On our runs of the first seed, which share their test images."""
    same = [o for o in others if o.runs and lead.runs and o.runs[0].directory == lead.runs[0].directory]
    if same:
        yield f"Ours: {lead.row.label} shares its run with {', '.join(o.row.label for o in same)} at this budget."
    for other in others:
        if other.runs and lead.runs and other not in same:
            sentence = _paired_sentence(lead, other)
            if sentence:
                yield sentence


def _paired_sentence(lead: RowOutcome, other: RowOutcome) -> str:
    """McNemar's test and the paired difference; "" where the two were not tested on the same images."""
    runs = [one.runs[0].result for one in (lead, other)]
    a, b = (read_predictions(run / "predictions" / "test.csv") for run in runs)
    try:
        b = align(a, b, *runs)
    except DataError:
        return ""
    test = mcnemar(a.predicted == a.labels, b.predicted == b.labels)
    gap = paired_bootstrap(a.labels, a.predicted, b.predicted, len(a.class_names), samples=_SAMPLES)[
        "accuracy"
    ]
    verdict = "no difference shown" if gap.low <= 0 <= gap.high else "a difference"
    return (
        f"Ours: {lead.row.label} minus {other.row.label} {100 * gap.value:+.2f} points, 95 % interval "
        f"{100 * gap.low:+.2f} to {100 * gap.high:+.2f}, McNemar p = {test.exact_p:.3g} on {len(a.labels)} images: "
        f"{verdict}."
    )

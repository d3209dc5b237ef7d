"""Figures that lay the runs of several rows side by side: curves, confusion matrices, ROC curves, lines of scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wbc_jax.commands.conclude import read_history
from wbc_jax.evaluate.comparison_figures import (
    Curve,
    confusion_row_figure,
    curves_figure,
    lines_figure,
    roc_row_figure,
)
from wbc_jax.evaluate.predictions import read_predictions
from wbc_jax.evaluate.report import Evaluation, evaluate_predictions
from wbc_jax.reproduce.data_drawings import markdown_table, picture, write_csv
from wbc_jax.reproduce.measured import estimate
from wbc_jax.reproduce.outcome import Context, Drawing, RowOutcome
from wbc_jax.reproduce.score_tables import SCORE_TITLES, left_out_notes

_NOTHING = "No run to draw."
_PARTS = {"train": ("epoch.accuracy", "training"), "val": ("val.accuracy", "validation")}


def _evaluation(outcome: RowOutcome) -> Evaluation:
    """The first seed's predictions on its test images."""
    found = read_predictions(outcome.runs[0].result / "predictions" / "test.csv")
    return evaluate_predictions(found.labels, found.probabilities, found.class_names, bootstrap_samples=0)


def row_title(outcome: RowOutcome) -> str:
    """Label with its data set, and whether another one stood in."""
    row = outcome.row
    name = row.label if row.group in ("", row.label) else f"{row.group}, {row.label}"
    return f"{name} (stand-in)" if outcome.stand_in else name


def draw_curves(context: Context) -> Drawing:
    """Accuracy over epochs, the first seed of each row; the highest validation value marked."""
    curves, body = [], []
    for outcome in context.finished():
        history = read_history(outcome.runs[0].result)
        for part in context.exhibit.scores:
            name, title = _PARTS[part]
            points = [(float(r["epoch"]), 100 * float(r[name])) for r in history if name in r]
            if points:
                curves.append(
                    Curve(label=f"{row_title(outcome)}, {title}", points=points, dashed=part == "train")
                )
        body.append(_curve_line(outcome, history))
    if not curves:
        return Drawing(markdown="\n\n".join([_NOTHING, *left_out_notes(context.outcomes)]))
    curves_figure(curves, context.path(".png"), mark_best="val" in context.exhibit.scores)
    rows = [[c.label, x, f"{y:.4f}"] for c in curves for x, y in c.points]
    write_csv(context.path(".csv"), ["curve", "epoch", "accuracy_percent"], rows)
    header = ["", "best validation accuracy", "last training accuracy"]
    return picture(context, [markdown_table(header, body), *left_out_notes(context.outcomes)])


def _curve_line(outcome: RowOutcome, history: list[dict[str, Any]]) -> list[str]:
    validated = [100 * r["val.accuracy"] for r in history if "val.accuracy" in r]
    trained = [100 * r["epoch.accuracy"] for r in history if "epoch.accuracy" in r]
    printed = outcome.row.published
    return [
        row_title(outcome),
        _beside(max(validated, default=None), printed.get("best_validation")),
        _beside(trained[-1] if trained else None, printed.get("last_training")),
    ]


def _beside(ours: float | None, published: float | None) -> str:
    parts = ["" if ours is None else f"{ours:.2f}", "" if published is None else f"paper {published:.2f}"]
    return "<br>".join(part for part in parts if part)


def draw_confusion(context: Context) -> Drawing:
    """Confusion matrices in a row, counts and percent."""
    shown = [(row_title(o), _evaluation(o)) for o in context.finished()]
    if not shown:
        return Drawing(markdown="\n\n".join([_NOTHING, *left_out_notes(context.outcomes)]))
    confusion_row_figure(shown, context.path(".png"))
    rows = [
        [label, true, predicted, int(e.counts[i, j])]
        for label, e in shown
        for i, true in enumerate(e.class_names)
        for j, predicted in enumerate(e.class_names)
    ]
    write_csv(context.path(".csv"), ["row", "true", "predicted", "images"], rows)
    return picture(context, left_out_notes(context.outcomes))


def draw_roc(context: Context) -> Drawing:
    """ROC curves of each class and their mean, a panel a row; beside a single one its confusion matrix."""
    shown = [(row_title(o), _evaluation(o)) for o in context.finished()]
    if not shown:
        return Drawing(markdown="\n\n".join([_NOTHING, *left_out_notes(context.outcomes)]))
    roc_row_figure(shown, context.path(".png"), with_confusion=len(shown) == 1)
    rows, body = [], []
    for (label, evaluation), outcome in zip(shown, context.finished(), strict=True):
        areas = {name: row["auc"] for name, row in evaluation.per_class.items()}
        areas["macro"] = evaluation.overall.get("auc_macro")
        rows += [[label, name, "" if area is None else f"{area:.6f}"] for name, area in areas.items()]
        printed = outcome.row.published.get("auc_macro")
        macro = areas["macro"]
        body.append([label, _beside(None if macro is None else 100 * macro, printed)])
    write_csv(context.path(".csv"), ["row", "class", "auc"], rows)
    return picture(
        context, [markdown_table(["", "macro AUC, percent"], body), *left_out_notes(context.outcomes)]
    )


def draw_lines(context: Context) -> Drawing:
    """Each score across networks, ours solid, the published values dashed."""
    scores, outcomes = context.exhibit.scores, context.outcomes
    labels = [o.row.label for o in outcomes]
    ours, printed, rows = {}, {}, []
    for score in scores:
        title = SCORE_TITLES.get(score, score)
        found = [estimate(o.metrics, score) if o.runs else None for o in outcomes]
        ours[title] = [None if e is None else e.value for e in found]
        printed[title] = [o.row.published.get(score) for o in outcomes]
        rows += [
            [label, score, _number(mine), _number(theirs)]
            for label, mine, theirs in zip(labels, ours[title], printed[title], strict=True)
        ]
    lines_figure(labels, ours, printed, context.path(".png"))
    write_csv(context.path(".csv"), ["row", "score", "ours", "published"], rows)
    return picture(context, left_out_notes(outcomes))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def draw_attribute_confusion(context: Context) -> Drawing:
    """The eleven matrices of the first row's first seed."""
    import shutil

    for outcome in context.finished():
        source = outcome.runs[0].result / "figures" / "attribute_confusion_test.png"
        if source.is_file():
            shutil.copyfile(source, context.path(".png"))
            _attribute_counts(outcome, context.path(".csv"))
            return picture(context, left_out_notes(context.outcomes))
    missing = "No run predicts attributes of annotated images."
    return Drawing(markdown="\n\n".join([missing, *left_out_notes(context.outcomes)]))


def _attribute_counts(outcome: RowOutcome, path: Path) -> None:
    matrices = outcome.metrics[0]["test"]["attributes"]["confusion"]
    rows = [
        [name, true, predicted, matrix["counts"][i][j]]
        for name, matrix in matrices.items()
        for i, true in enumerate(matrix["values"])
        for j, predicted in enumerate(matrix["values"])
    ]
    write_csv(path, ["attribute", "true", "predicted", "images"], rows)

"""Exhibits about networks and recipes: settings, architecture, stages of training."""

from __future__ import annotations

from typing import Any

from wbc_jax.catalog import TASKS
from wbc_jax.commands.run import build_model
from wbc_jax.config_json import flatten, to_dict
from wbc_jax.models.summary import summarise
from wbc_jax.reproduce.data_drawings import markdown_table, write_csv
from wbc_jax.reproduce.outcome import Context, Drawing
from wbc_jax.reproduce.plan import LeftOut, PlannedRun

_SETTINGS = (
    "data.task",
    "data.split",
    "data.image_size_px",
    "data.balance",
    "model.",
    "optim.",
    "augment.",
    "train.",
)


def _plans(context: Context) -> tuple[list[tuple[str, PlannedRun]], list[str]]:
    """(label, run) of each row, and the reasons of those left out."""
    plans, reasons = [], []
    for row in context.exhibit.rows:
        plan = None if row.arm is None else context.planner.resolve(row.arm, 0)
        if isinstance(plan, LeftOut):
            reasons.append(f"{row.label}: {plan.reason}.")
        elif plan is not None:
            plans.append((row.label, plan))
    return plans, reasons


def draw_settings(context: Context) -> Drawing:
    """Every field that decides the result, a column a row of the exhibit."""
    plans, reasons = _plans(context)
    columns = [flatten(to_dict(plan.config)) for _, plan in plans]
    fields = [name for name in (columns[0] if columns else {}) if name.startswith(_SETTINGS)]
    body = [[f"`{name}`", *(_shown(column[name]) for column in columns)] for name in fields]
    return _table(context, ["field", *(label for label, _ in plans)], body, reasons)


def draw_architecture(context: Context) -> Drawing:
    """Every named map with its shape, and the parameters of every module."""
    plans, reasons = _plans(context)
    parts, rows = [], []
    for label, plan in plans:
        task = TASKS.get(plan.config.data.task, TASKS["wbc5"])
        summary = summarise(build_model(plan.config.model, task.num_classes), plan.config.data.image_size_px)
        body: list[list[Any]] = [
            [n, " x ".join(map(str, shape[1:])), ""] for n, shape, _ in summary.endpoints
        ]
        body += [[f"module {name}", "", count] for name, count in summary.modules]
        body.append(["**all**", "", summary.parameters])
        parts.append(
            f"{label}: `{plan.config.model.name}`, {plan.config.data.image_size_px} px, "
            f"{task.num_classes} classes.\n\n"
            + markdown_table(["map or module", "shape", "parameters"], body)
        )
        rows += [[label, *line] for line in body]
    write_csv(context.path(".csv"), ["network", "map_or_module", "shape", "parameters"], rows)
    return Drawing(markdown="\n\n".join([*parts, *reasons]), files=(context.path(".csv"),))


def draw_stages(context: Context) -> Drawing:
    """The steps of a recipe of several stages: what each learns from, and how."""
    plans, reasons = _plans(context)
    body = []
    for label, plan in plans:
        config = plan.config
        share = config.train.attribute_share
        learns = {0.0: "cell classes", 1.0: "attributes"}.get(
            share, f"{share:g} attributes + {1 - share:g} classes"
        )
        start = "random weights" if plan.predictor is None else "the attribute predictor of the step before"
        body.append([label, config.data.dataset, config.model.name, learns, config.train.epochs, start])
    header = ["step", "data set", "network", "loss", "epochs", "starts from"]
    return _table(context, header, body, reasons)


def _table(context: Context, header: list[str], body: list[list[Any]], notes: list[str]) -> Drawing:
    path = context.path(".csv")
    write_csv(path, header, [[str(cell).strip("`") for cell in row] for row in body])
    text = [markdown_table(header, body)] if body else []
    return Drawing(markdown="\n\n".join([*text, *notes]), files=(path,))


def _shown(value: Any) -> str:
    return "–" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)

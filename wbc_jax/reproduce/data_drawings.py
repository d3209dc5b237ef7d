"""Exhibits about data: images of each class, parts of the split, attribute values, balanced training sets."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wbc_jax.catalog import ABSENT, ATTRIBUTES, CELL_CLASSES
from wbc_jax.config import Config, DataConfig
from wbc_jax.data.balance import balance_plan
from wbc_jax.data.experiment import PARTS, Experiment, load_experiment, open_prepared
from wbc_jax.data.packed import PackedStore
from wbc_jax.data.registry import DATASETS
from wbc_jax.reproduce.outcome import Context, Drawing

_STORE_SIZE_PX = 256


def data_config(context: Context, dataset: str) -> DataConfig:
    """Where a data set is prepared, at the size of the budget's runs, so that it is prepared once."""
    places, size = context.planner.places, context.budget.store_size_px or _STORE_SIZE_PX
    return DataConfig(
        dataset=dataset,
        raw_dir=None if places.raw_dir is None else str(places.raw_dir),
        cache_dir=None if places.cache_dir is None else str(places.cache_dir),
        store_size_px=size,
        image_size_px=min(size, Config().data.image_size_px),
    )


def present(context: Context) -> list[str]:
    """Data sets of the exhibit that are here."""
    return [name for name in context.exhibit.datasets if context.planner.absence(name) is None]


def absences(context: Context) -> list[str]:
    """A paragraph for each data set of the exhibit that is not here."""
    reasons = (context.planner.absence(name) for name in context.exhibit.datasets)
    return [f"{reason[0].upper()}{reason[1:]}." for reason in reasons if reason is not None]


def draw_data_facts(context: Context) -> Drawing:
    """Images of each class in the full archive, as published, and here."""
    header = ["data set", "where", *CELL_CLASSES[:5], "other", "all"]
    body: list[list[Any]] = []
    for name in context.exhibit.datasets:
        facts = DATASETS[name]
        if facts.expected or facts.expected_total:
            body.append([name, "published", *_by_class(facts.expected, facts.expected_total)])
        if context.planner.absence(name) is None:
            body.append([name, "here", *_by_class(_counts(open_prepared(data_config(context, name))), None)])
    return _table(context, header, body)


def _by_class(counts: Any, total: int | None) -> list[Any]:
    shown = [counts.get(name, "") for name in CELL_CLASSES[:5]]
    other = sum(n for name, n in counts.items() if name not in CELL_CLASSES[:5])
    return [*shown, other or "", total or sum(counts.values())]


def _counts(store: PackedStore) -> dict[str, int]:
    per_class = np.bincount(store.samples.cell_class, minlength=len(store.samples.cell_classes))
    return {name: int(n) for name, n in zip(store.samples.cell_classes, per_class, strict=True) if n}


def draw_split_facts(context: Context) -> Drawing:
    """Images of each part and class."""
    header, body = ["data set", "protocol", "class", *PARTS, "all"], []
    for name in present(context):
        experiment = load_experiment(data_config(context, name))
        counts = [
            np.bincount(experiment.part(p).labels, minlength=experiment.task.num_classes) for p in PARTS
        ]
        for i, label in enumerate(experiment.task.class_names):
            row = [int(c[i]) for c in counts]
            body.append([name, experiment.split.protocol, label, *row, sum(row)])
        row = [int(c.sum()) for c in counts]
        body.append([name, experiment.split.protocol, "all", *row, sum(row)])
    return _table(context, header, body)


def draw_attribute_facts(context: Context) -> Drawing:
    """Images of each attribute value in the parts of the split."""
    header, body = ["attribute", "value", *PARTS], []
    for name in present(context):
        experiment = load_experiment(data_config(context, name))
        for column, attribute in enumerate(ATTRIBUTES):
            for index, value in enumerate(attribute.values):
                hits = [int((experiment.part(p).attributes[:, column] == index).sum()) for p in PARTS]
                body.append([attribute.name, value, *hits])
        missing = [int((experiment.part(p).attributes == ABSENT).all(axis=1).sum()) for p in PARTS]
        body.append(["not annotated", "", *missing])
    return _table(context, header, body)


def draw_class_counts(context: Context) -> Drawing:
    """Bars of the training images of each class before and after balancing, a panel a data set."""
    from matplotlib.figure import Figure

    names = present(context)
    if not names:
        return Drawing(markdown="\n\n".join(absences(context)))
    figure = Figure(figsize=(4.2 * len(names), 3.4), layout="constrained")
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    rows: list[list[Any]] = []
    for axes, name in zip(panels, names, strict=True):
        experiment = load_experiment(data_config(context, name))
        classes = experiment.task.class_names
        before = np.bincount(experiment.train.labels, minlength=len(classes))
        after = _balanced(experiment) if name != "bccd_kaggle" else before
        places = np.arange(len(classes))
        axes.bar(places - 0.2, before, width=0.4, label="as supplied", color="0.6")
        bars = axes.bar(places + 0.2, after, width=0.4, label="balanced", color="tab:blue")
        axes.bar_label(bars, fontsize=7)
        axes.set_xticks(places, classes, rotation=30, ha="right", fontsize=8)
        axes.set_title(name if name != "bccd_kaggle" else f"{name} (comes augmented)", fontsize=10)
        axes.set_ylabel("training images")
        rows += [[name, c, int(b), int(a)] for c, b, a in zip(classes, before, after, strict=True)]
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside upper right", ncols=2, frameon=False, fontsize=8
    )
    figure.savefig(context.path(".png"), dpi=130)
    write_csv(context.path(".csv"), ["data_set", "class", "as_supplied", "balanced"], rows)
    return picture(context, absences(context))


def _balanced(experiment: Experiment) -> np.ndarray:
    labels = experiment.train.labels
    plan = balance_plan(labels, None, 0)
    return np.bincount(np.concatenate([labels, labels[plan.source]]), minlength=experiment.task.num_classes)


def picture(context: Context, notes: Sequence[str] = ()) -> Drawing:
    """A drawing that is one PNG with its numbers as CSV, where there are any."""
    files = tuple(p for p in (context.path(".png"), context.path(".csv")) if p.is_file())
    image = f"![{context.exhibit.title}]({context.path('.png').name})"
    return Drawing(markdown="\n\n".join([image, *notes]), files=files)


def _table(context: Context, header: list[str], body: list[list[Any]]) -> Drawing:
    path = context.path(".csv")
    write_csv(path, header, body)
    text = markdown_table(header, body) if body else ""
    return Drawing(markdown="\n\n".join([*([text] if text else []), *absences(context)]), files=(path,))


def markdown_table(header: Sequence[str], body: Sequence[Sequence[Any]]) -> str:
    """A table of GitHub's Markdown."""
    rows = [list(header), ["---"] * len(header), *([_shown(cell) for cell in row] for row in body)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows)


def _shown(cell: Any) -> str:
    return f"{cell:,}" if isinstance(cell, int) and not isinstance(cell, bool) else str(cell)


def write_csv(
    path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]] | Iterator[Sequence[Any]]
) -> None:
    """Header and rows."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)

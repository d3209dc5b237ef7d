"""What a paper shows, in words of this package: exhibits (tables and figures), their rows, the runs behind them. [pure]

An arm is one training run apart from budget and seed. Arms are values: two exhibits that need the same arm share its
run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Value = str | int | float | bool | None | tuple[float, ...]

Kind = Literal[
    "scores",
    "classes",
    "attributes",
    "data_facts",
    "split_facts",
    "attribute_facts",
    "settings",
    "architecture",
    "stages",
    "samples",
    "extraction",
    "class_counts",
    "mixup",
    "curves",
    "confusion",
    "roc",
    "lines",
    "grad_cam",
    "attribute_confusion",
]
"""How an exhibit is drawn; `wbc_jax.reproduce.drawing` has one function for each."""

RUNLESS: tuple[Kind, ...] = (
    "data_facts", "split_facts", "attribute_facts", "settings", "architecture", "stages", "samples", "extraction",
    "class_counts", "mixup",
)  # fmt: skip
"""Kinds that are drawn from data and configs alone."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One training run, apart from budget and seed.

    Attributes:
        recipe: the recipe it starts from, as `--config` takes it.
        dataset: data set by name.
        changes: (field path, value), applied to the recipe in this order.
        imagenet: (weights field, network of torchvision's file) that the paper initialises; used where the files are.
        needs_imagenet: without these files the arm would be another one, so it is left out.
        finetune_learning_rate: peak rate where ImageNet weights are used; None: the recipe's.
        predictor: arm whose trained attribute predictor this one starts from.
    """

    recipe: str
    dataset: str
    changes: tuple[tuple[str, Value], ...] = ()
    imagenet: tuple[tuple[str, str], ...] = ()
    needs_imagenet: bool = False
    finetune_learning_rate: float | None = None
    predictor: Arm | None = None


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of a table, or one curve, matrix or column of a figure.

    Attributes:
        label: as the paper calls it.
        arm: the run behind it; None: a figure quoted by the paper, nothing to run.
        group: data set or task that the row belongs to; "" where a table has one.
        published: score name -> percent as printed. In tables of classes or attributes: `<class>.<score>`.
        test_images: images of the paper's test set, where known.
        ours: the row stands for the paper's own method.
    """

    label: str
    arm: Arm | None = None
    group: str = ""
    published: Mapping[str, float] = field(default_factory=dict)
    test_images: int | None = None
    ours: bool = False


@dataclass(frozen=True, kw_only=True)
class Exhibit:
    """One table or figure.

    Attributes:
        paper: scam, daffnet or amnet.
        key: how the command names it: table4, figure6, s1.
        title: what it shows.
        kind: how it is drawn.
        rows: of tables and of figures of runs.
        scores: scores of a table's columns.
        datasets: of exhibits about data.
        cautions: keys of `wbc_jax.reproduce.cautions`.
        endpoints: feature maps of a Grad-CAM figure.
    """

    paper: str
    key: str
    title: str
    kind: Kind
    rows: tuple[Row, ...] = ()
    scores: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    cautions: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()

    def arms_are_run(self) -> bool:
        """Whether its rows are trained, or only looked at."""
        return self.kind not in RUNLESS

    def arms(self) -> tuple[Arm, ...]:
        """The runs that it needs, each once, in the order of the rows; those of predictors first."""
        found: dict[Arm, None] = {}
        if not self.arms_are_run():
            return ()
        for row in self.rows:
            for arm in _with_predictor(row.arm):
                found[arm] = None
        return tuple(found)


def _with_predictor(arm: Arm | None) -> tuple[Arm, ...]:
    return () if arm is None else (*_with_predictor(arm.predictor), arm)


def arm(recipe: str, dataset: str, **fields: Value) -> Arm:
    """An arm whose changes are written as keywords, `model__attention="cam"`."""
    changes = tuple((name.replace("__", "."), value) for name, value in fields.items())
    return Arm(recipe=recipe, dataset=dataset, changes=changes)

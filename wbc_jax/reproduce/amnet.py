"""Tables 1 to 9, Figures 1 to 13 and Supplements S1 to S6 of WBC-AMNet (PLoS ONE 17(1):e0261848, 2022). [pure]"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from wbc_jax.configs.amnet import SEARCH, for_length, tri
from wbc_jax.reproduce.exhibit import Arm, Exhibit, Kind, Row, Value, arm
from wbc_jax.reproduce.published import amnet as published

PAPER = "amnet"
SCORES = ("accuracy", "weighted_precision", "weighted_f1")
CLASS_SCORES = ("recall", "precision", "f1")

NETWORKS = {
    "VGG": "vgg16",
    "ShuffleNetV2": "shufflenet_v2_x1_0",
    "DPN": "dpn68",
    "InceptionV4": "inception_v4",
    "AlexNet": "alexnet",
    "DistResNet": "dist_resnet50",
    "MobileNetV1": "mobilenet_v1",
    "MobileNetV2": "mobilenet_v2",
    "ResNet": "resnet50",
    "SE-ResNeXt": "se_resnext50_32x4d",
    "WBC-AMNet": "amnet",
}
FOUR = ("MobileNetV2", "ResNet", "SE-ResNeXt", "WBC-AMNet")
FIVE = ("VGG", *FOUR)
OURS = "WBC-AMNet"
MAPS = ("trunk/stage4", "attention/se_fused", "attention/se_ge", "attended")
_WITH_FILES = {
    "vgg16",
    "alexnet",
    "mobilenet_v2",
    "shufflenet_v2_x1_0",
    "resnet50",
    "se_resnext50_32x4d",
    "amnet",
}


@dataclasses.dataclass(frozen=True)
class _Task:
    """A task of the paper: recipe, data set, name in the tables, images of its test set."""

    recipe: str
    dataset: str
    title: str
    test_images: int


BCCD_TRI = _Task("amnet:tri", "bccd_kaggle", "BCCD-3", published.BCCD_TEST_IMAGES)
BCCD_QUAD = _Task("amnet", "bccd_kaggle", "BCCD-4", published.BCCD_TEST_IMAGES)
WBCS_TRI = _Task("amnet:wbcs_tri", "wbcs", "WBCs-3", published.WBCS_TRI_TEST_IMAGES)
WBCS_QUAD = _Task("amnet:wbcs_quad", "wbcs", "WBCs-4", published.WBCS_QUAD_TEST_IMAGES)


def _network(label: str, task: _Task, **fields: Value) -> Arm:
    name = NETWORKS[label]
    return dataclasses.replace(
        arm(task.recipe, task.dataset, model__name=name, **fields),
        imagenet=(("pretrained", name),) if name in _WITH_FILES else (),
    )


def _row(label: str, task: _Task, printed: Mapping[str, float] | None = None, **fields: Any) -> Row:
    return Row(
        label=label,
        arm=_network(label, task),
        published=printed or {},
        test_images=task.test_images,
        ours=label == OURS,
        **fields,
    )


def _overall(values: tuple[float, ...]) -> dict[str, float]:
    return dict(zip(SCORES, values, strict=True))


def _by_class(values: Mapping[str, tuple[float, ...]]) -> dict[str, float]:
    """`{"lymphocyte.recall": 100.0, …, "total.f1": 95.66}`."""
    return {
        f"{name}.{score}": value
        for name, row in values.items()
        for score, value in zip(CLASS_SCORES, row, strict=True)
    }


def _networks(task: _Task, values: Mapping[str, tuple[float, ...]]) -> tuple[Row, ...]:
    return tuple(_row(label, task, _overall(row)) for label, row in values.items())


def _own_classes(
    task: _Task, classes: dict[str, tuple[float, ...]], total: tuple[float, ...]
) -> tuple[Row, ...]:
    return (_row(OURS, task, _by_class({**classes, "total": total})),)


def _four(task: _Task, values: Mapping[str, Mapping[str, tuple[float, ...]]]) -> tuple[Row, ...]:
    return tuple(_row(label, task, _by_class(values[label])) for label in FOUR)


def _four_overall(task: _Task, values: Mapping[str, Mapping[str, tuple[float, ...]]]) -> tuple[Row, ...]:
    return tuple(_row(label, task, _overall(values[label]["total"])) for label in FOUR)


def _areas(task: _Task, key: str, labels: tuple[str, ...]) -> tuple[Row, ...]:
    areas = published.AREAS.get(key, {})
    return tuple(
        _row(label, task, {"auc_macro": areas[label]} if label in areas else None) for label in labels
    )


def _searched(task: _Task, epochs: int, batch_size: int) -> Row:
    length = for_length(tri(), epochs, batch_size)
    found = published.SEARCH[epochs, batch_size]
    made = _network(
        OURS,
        task,
        train__epochs=epochs,
        train__batch_size=batch_size,
        optim__piecewise_epochs=length.optim.piecewise_epochs,
    )
    return Row(
        label=f"{epochs} epochs, batch {batch_size}",
        arm=made,
        published=_overall(found) if task is BCCD_TRI else {},
        test_images=task.test_images,
        ours=(epochs, batch_size) == (20, 32),
    )


def _without(label: str, **fields: Value) -> Row:
    return Row(label=f"{label} *", arm=_network(OURS, BCCD_TRI, **fields), test_images=BCCD_TRI.test_images)


_ABLATION = (
    _row("ResNet", BCCD_TRI, _overall(published.BCCD_TRI_NETWORKS["ResNet"])),
    _row("SE-ResNeXt", BCCD_TRI, _overall(published.BCCD_TRI_NETWORKS["SE-ResNeXt"])),
    _without("without GE", model__use_ge=False),
    _without("without SE", model__use_se=False),
    _without("without X1 and X5", model__use_fusion=False),
    _row(OURS, BCCD_TRI, _overall(published.BCCD_TRI_NETWORKS[OURS])),
)
_ALL = tuple(_row(label, task, group=task.title) for task in (BCCD_TRI, BCCD_QUAD) for label in NETWORKS)
_SEARCH = {task: tuple(_searched(task, *pair) for pair in SEARCH) for task in (BCCD_TRI, BCCD_QUAD)}
_BCCD = ("bccd_leak", "test_selection", "specificity")
_TRI, _QUAD = published.BCCD_TRI_NETWORKS, published.BCCD_QUAD_NETWORKS


def _exhibit(key: str, title: str, kind: Kind, **fields: Any) -> Exhibit:
    return Exhibit(paper=PAPER, key=key, title=title, kind=kind, **fields)


def _scores(key: str, title: str, rows: tuple[Row, ...], *cautions: str) -> Exhibit:
    return _exhibit(key, title, "scores", rows=rows, scores=SCORES, cautions=cautions)


def _classes(key: str, title: str, rows: tuple[Row, ...], *cautions: str) -> Exhibit:
    return _exhibit(key, title, "classes", rows=rows, scores=CLASS_SCORES, cautions=cautions)


def _runs(key: str, title: str, kind: Kind, rows: tuple[Row, ...], *cautions: str) -> Exhibit:
    return _exhibit(key, title, kind, rows=rows, cautions=cautions)


_DATASETS = ("bccd_kaggle", "wbcs")
_MATRICES = "Confusion matrices of four networks on"

EXHIBITS: tuple[Exhibit, ...] = (
    _exhibit("table1", "Images of each part and class", "split_facts", datasets=_DATASETS),
    _exhibit("table2", "Settings", "settings", rows=(_row(OURS, BCCD_QUAD),), cautions=("settings_template",)),
    _scores("table3", "Epochs and batch size on BCCD-3", _SEARCH[BCCD_TRI], *_BCCD),
    _classes("table4", "WBC-AMNet on BCCD-3", _own_classes(BCCD_TRI, published.BCCD_TRI_CLASSES, _TRI[OURS]), *_BCCD),
    _scores("table5", "Networks on BCCD-3", _networks(BCCD_TRI, _TRI), *_BCCD, "mixed_averages"),
    _classes(
        "table6", "WBC-AMNet on BCCD-4", _own_classes(BCCD_QUAD, published.BCCD_QUAD_CLASSES, (89.22, 90.72, 89.48)),
        *_BCCD,
    ),
    _scores("table7", "Networks on BCCD-4", _networks(BCCD_QUAD, _QUAD), *_BCCD, "mixed_averages"),
    _classes("table8", "Four networks on WBCs-3", _four(WBCS_TRI, published.WBCS_TRI), "wbcs_steps"),
    _classes("table9", "Four networks on WBCs-4", _four(WBCS_QUAD, published.WBCS_QUAD), "wbcs_steps"),
    _scores("ablation", "What each part of the attention adds, on BCCD-3", _ABLATION, *_BCCD, "own_arms"),
    _exhibit("figure1", "Cells of each class and data set", "samples", datasets=_DATASETS),
    _exhibit("figure2", "Network, from end to end", "architecture", rows=(_row(OURS, BCCD_QUAD),)),
    _exhibit("figure3", "Training accuracy of four networks on BCCD-3", "curves",
             rows=_networks(BCCD_TRI, {label: _TRI[label] for label in FOUR}), scores=("train",)),
    _runs("figure4", "ROC curves and confusion matrix on BCCD-3", "roc", _areas(BCCD_TRI, "bccd_tri", (OURS,)), *_BCCD),
    _runs("figure5", "Confusion matrices of other networks on BCCD-3", "confusion",
          tuple(_row(label, BCCD_TRI) for label in FIVE[:-1]), *_BCCD),
    _runs("figure6", "ROC curves and confusion matrix on BCCD-4", "roc", _areas(BCCD_QUAD, "", (OURS,)), *_BCCD),
    _exhibit("figure7", "Four networks on WBCs-3", "lines",
             rows=_four_overall(WBCS_TRI, published.WBCS_TRI), scores=SCORES),
    _runs("figure8", "ROC curves and confusion matrix on WBCs-3", "roc",
          _areas(WBCS_TRI, "wbcs_tri", (OURS,)), "wbcs_steps"),
    _runs("figure9", "ROC curves of other networks on WBCs-3", "roc", _areas(WBCS_TRI, "wbcs_tri", FOUR[:-1])),
    _exhibit("figure10", "Four networks on WBCs-4", "lines",
             rows=_four_overall(WBCS_QUAD, published.WBCS_QUAD), scores=SCORES),
    _runs("figure11", "ROC curves and confusion matrix on WBCs-4", "roc",
          _areas(WBCS_QUAD, "wbcs_quad", (OURS,)), "wbcs_steps"),
    _runs("figure12", "ROC curves of other networks on WBCs-4", "roc", _areas(WBCS_QUAD, "wbcs_quad", FOUR[:-1])),
    _exhibit("figure13", "Where the network looks, at four stages of its attention", "grad_cam",
             rows=(_row(OURS, BCCD_QUAD),), endpoints=MAPS),
    _classes("s1", "Epochs and batch size on BCCD-3, by class",
             tuple(dataclasses.replace(row, published={}) for row in _SEARCH[BCCD_TRI]), *_BCCD),
    _classes("s2", "Other networks, by class", _ALL, *_BCCD),
    _classes("s3", "Epochs and batch size on BCCD-4, by class", _SEARCH[BCCD_QUAD], *_BCCD),
    _runs("s5", f"{_MATRICES} WBCs-3", "confusion", tuple(_row(label, WBCS_TRI) for label in FOUR)),
    _runs("s6", f"{_MATRICES} WBCs-4", "confusion", tuple(_row(label, WBCS_QUAD) for label in FOUR)),
)  # fmt: skip

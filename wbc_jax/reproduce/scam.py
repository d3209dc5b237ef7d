"""Tables 1 to 12 and Figures 1 to 10 of SCAM (BMC Bioinformatics 23:282, 2022). [pure]

The five networks it compares with are named only in its table images; the set here is our reading.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from wbc_jax.reproduce.exhibit import Arm, Exhibit, Kind, Row, Value, arm
from wbc_jax.reproduce.published import scam as published

PAPER = "scam"
DATASETS = ("ldwbc", "lisc", "bccd_kaggle", "raabin")
SCORES = ("accuracy", "average_precision_rate", "average_recall", "af1_harmonic", "macro_f1")
CLASS_SCORES = ("recall",)
FINETUNE_LEARNING_RATE = 1e-4

ALPHAS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
ATTENTIONS = {
    "none": "none",
    "SE": "se",
    "ECA": "eca",
    "CAM": "cam",
    "SAM": "sam",
    "CAM//SAM": "parallel",
    "CSAM": "csam",
    "SCAM": "scam",
}
BRANCHES = {"ResNet module": "resnet", "DenseNet module": "densenet", "both": "both"}
PRETRAINED = {
    "none": (),
    "ResNet only": ("resnet",),
    "DenseNet only": ("densenet",),
    "both": ("resnet", "densenet"),
}
NETWORKS = {
    "ResNet50": "resnet50",
    "DenseNet121": "densenet121",
    "SE-ResNeXt50": "se_resnext50_32x4d",
    "EPSANet50": "epsanet50",
    "MobileNetV2": "mobilenet_v2",
}
BRANCH_FILES = {"resnet": ("resnet",), "densenet": ("densenet",), "both": ("resnet", "densenet")}
_FILES = {"resnet": ("pretrained_resnet", "resnet50"), "densenet": ("pretrained_densenet", "densenet121")}
_WITH_FILES = ("resnet50", "densenet121", "se_resnext50_32x4d", "mobilenet_v2")


_BOTH = ("resnet", "densenet")


def _scam(dataset: str = "ldwbc", pretrained: tuple[str, ...] = _BOTH, **fields: Value) -> Arm:
    """SCAM on a data set, from the ImageNet weights of these branches."""
    return dataclasses.replace(
        _arm(dataset, **fields),
        imagenet=tuple(_FILES[branch] for branch in pretrained),
        finetune_learning_rate=FINETUNE_LEARNING_RATE,
    )


def _network(name: str, dataset: str = "ldwbc", **fields: Value) -> Arm:
    """One of the networks that SCAM is compared with, under SCAM's settings."""
    return dataclasses.replace(
        _arm(dataset, model__name=name, **fields),
        imagenet=(("pretrained", name),) if name in _WITH_FILES else (),
        finetune_learning_rate=FINETUNE_LEARNING_RATE,
    )


def _arm(dataset: str, **fields: Value) -> Arm:
    """BCCD comes augmented, the other training sets are balanced by copies."""
    return arm("scam", dataset, data__balance="none" if dataset == "bccd_kaggle" else "offline", **fields)


def _row(label: str, made: Arm, *, ours: bool = False, group: str = "") -> Row:
    on_ldwbc = made.dataset == "ldwbc"
    return Row(
        label=label,
        arm=made,
        group=group,
        published=published.LDWBC_TEST if ours and on_ldwbc else {},
        test_images=published.LDWBC_TEST_IMAGES if on_ldwbc else None,
        ours=ours,
    )


def _pretrained(label: str, branches: tuple[str, ...]) -> Row:
    made = dataclasses.replace(_scam(pretrained=branches), needs_imagenet=bool(branches))
    return _row(label, made, ours=label == "both")


def _mixed(dataset: str, group: str = "", **fields: Value) -> tuple[Row, ...]:
    """The six networks on one data set."""
    others = (_row(label, _network(name, dataset, **fields), group=group) for label, name in NETWORKS.items())
    return (*others, _row("SCAM", _scam(dataset, _BOTH, **fields), ours=True, group=group))


_ALPHA = {f"α = {a:g}": _row(f"α = {a:g}", _scam(augment__mixup_alpha=a), ours=a == 0.2) for a in ALPHAS}
_ATTENTION = {
    label: _row(label, _scam(model__attention=name), ours=name == "scam")
    for label, name in ATTENTIONS.items()
}
_BRANCH = tuple(
    _row(label, _scam(pretrained=BRANCH_FILES[name], model__branches=name), ours=name == "both")
    for label, name in BRANCHES.items()
)
_PRETRAINED = tuple(_pretrained(label, branches) for label, branches in PRETRAINED.items())
_RAW = tuple(
    dataclasses.replace(row, ours=False, published={})
    for row in _mixed("ldwbc", "raw", augment__mixup_alpha=0.0)
)
_OTHER_SETS = tuple(row for name in DATASETS[1:] for row in _mixed(name, name))
_ALL_SETS = (*_mixed("ldwbc", "ldwbc"), *_OTHER_SETS)


def _exhibit(key: str, title: str, kind: Kind, **fields: Any) -> Exhibit:
    return Exhibit(paper=PAPER, key=key, title=title, kind=kind, **fields)


_QUOTED = ("scam_quoted", "af1", "one_set")

EXHIBITS: tuple[Exhibit, ...] = (
    _exhibit("table1", "Data sets: images of each class", "data_facts", datasets=DATASETS),
    _exhibit("table2", "Images for training, validation and test", "split_facts", datasets=DATASETS),
    _exhibit("table3", "Settings", "settings", rows=(_ATTENTION["SCAM"],), cautions=("settings_inferred",)),
    _exhibit("table4", "Mixup's α", "scores", rows=tuple(_ALPHA.values()), scores=SCORES, cautions=_QUOTED),
    _exhibit("table5", "Attention", "scores", rows=tuple(_ATTENTION.values()), scores=SCORES, cautions=_QUOTED),
    _exhibit("table6", "Attention, by class", "classes", rows=tuple(_ATTENTION.values()), scores=CLASS_SCORES),
    _exhibit("table7", "Feature extractors", "scores", rows=_BRANCH, scores=SCORES, cautions=_QUOTED),
    _exhibit("table8", "Pretraining", "scores", rows=_PRETRAINED, scores=SCORES, cautions=_QUOTED),
    _exhibit("table9", "Pretraining, by class", "classes", rows=_PRETRAINED, scores=CLASS_SCORES),
    _exhibit(
        "table10",
        "Six networks without and with mixup",
        "scores",
        rows=(*_RAW, *_mixed("ldwbc", "mixup")),
        scores=SCORES,
        cautions=(*_QUOTED, "networks_inferred"),
    ),
    _exhibit(
        "table11",
        "Six networks on three more data sets",
        "scores",
        rows=_OTHER_SETS,
        scores=SCORES,
        cautions=("af1", "bccd_leak", "networks_inferred"),
    ),
    _exhibit(
        "table12",
        "Six networks on four data sets, by class",
        "classes",
        rows=_ALL_SETS,
        scores=CLASS_SCORES,
        cautions=("bccd_leak", "networks_inferred"),
    ),
    _exhibit("figure1", "Cells of each class and data set", "samples", datasets=DATASETS),
    _exhibit("figure2", "How a cell is cut out", "extraction", datasets=("lisc",)),
    _exhibit("figure3", "Network, from end to end", "architecture", rows=(_ATTENTION["SCAM"],)),
    _exhibit("figure4", "Training images of each class, before and after balancing", "class_counts", datasets=DATASETS),
    _exhibit("figure5", "Mixup of two cells", "mixup", datasets=("ldwbc",)),
    _exhibit(
        "figure6",
        "Accuracy over epochs without and with mixup",
        "curves",
        rows=tuple(
            dataclasses.replace(
                _ALPHA[f"α = {a}"],
                published={"best_validation": published.BEST_VALIDATION[a], "last_training": published.TRAINING[a]},
                test_images=None,
            )
            for a in ("0", "0.2")
        ),
        scores=("train", "val"),
        cautions=("mixed_training_accuracy",),
    ),
    _exhibit(
        "figure7",
        "Confusion matrices of CAM, CSAM and SCAM",
        "confusion",
        rows=tuple(_ATTENTION[label] for label in ("CAM", "CSAM", "SCAM")),
    ),
    _exhibit(
        "figure8", "Training accuracy of six networks", "curves", rows=_mixed("ldwbc"), scores=("train",),
        cautions=("mixed_training_accuracy", "networks_inferred"),
    ),
    _exhibit(
        "figure9", "Validation accuracy of six networks", "curves", rows=_mixed("ldwbc"), scores=("val",),
        cautions=("networks_inferred",),
    ),
    _exhibit(
        "figure10",
        "Where SCAM looks",
        "grad_cam",
        rows=tuple(_row(name, _scam(name), ours=True, group=name) for name in DATASETS),
        endpoints=("attended",),
    ),
)  # fmt: skip

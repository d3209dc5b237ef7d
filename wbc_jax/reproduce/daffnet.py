"""Tables 1 to 6, Figures 1 to 7 and Supplements S1 to S3 of DAFFNet. [pure]

Its five arms are cumulative: ResNet50, + EPSA, + SA, + MAP, + MAE. The last two start from the attribute predictor of
Table 6's last row. Its BCCD is another image set than the augmented release that is used here.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from wbc_jax.reproduce.exhibit import Arm, Exhibit, Kind, Row, Value, arm
from wbc_jax.reproduce.published import daffnet as published

PAPER = "daffnet"
SCORES = published.SCORES
DATASETS = {
    "PBC": "pbc",
    "LISC": "lisc",
    "Raabin": "raabin",
    "BCCD": "bccd_kaggle",
    "LDWBC": "ldwbc",
    "Labelled": "labelled",
}
RECIPES = {
    "ResNet50": "daffnet:resnet50",
    "+ EPSA": "daffnet:epsa",
    "+ SA": "daffnet:epsa_sa",
    "+ MAP": "daffnet:map_code",
    "+ MAE (DAFFNet)": "daffnet:map_code",
}
OURS = "+ MAE (DAFFNet)"
BACKBONES = {"ResNet50": "resnet50", "VGG19": "vgg19", "ViT-B/16": "vit_b_16"}
_SEMANTIC_FILE = "pretrained_semantic"


def _predictor(recipe: str) -> Arm:
    """An arm of Table 6, on WBCAtt's images."""
    return dataclasses.replace(arm(recipe, "pbc"), imagenet=(("pretrained_map", "resnet50"),))


_STRATEGY = {
    "plain": _predictor("daffnet:map_plain"),
    "DSL": _predictor("daffnet:map_dsl"),
    "DSL + SSL": _predictor("daffnet:map_dsl_ssl"),
}


def _arm(label: str, dataset: str) -> Arm:
    """An arm of Table 4. Data sets other than PBC keep their own classes."""
    fields: dict[str, Value] = {} if dataset == "pbc" else {"data__task": "native"}
    if label == OURS:
        fields["model__morphology"] = "map_mae"
    made = arm(RECIPES[label], dataset, **fields)
    with_map = label in ("+ MAP", OURS)
    return dataclasses.replace(
        made,
        imagenet=((_SEMANTIC_FILE, "resnet50"),),
        predictor=_STRATEGY["DSL + SSL"] if with_map else None,
    )


def _row(label: str, title: str) -> Row:
    values = published.ABLATION[title][published.ARMS.index(label)]
    return Row(
        label=label,
        arm=_arm(label, DATASETS[title]),
        group=title,
        published=dict(zip(SCORES, values, strict=True)),
        test_images=published.TEST_IMAGES[title],
        ours=label == OURS,
    )


def _strategy(label: str, names: tuple[str, ...], values: tuple[float, ...]) -> Row:
    return Row(
        label=label,
        arm=_STRATEGY[label],
        published=dict(zip(names, values, strict=True)),
        test_images=published.MAP_TEST_IMAGES,
        ours=label == "DSL + SSL",
    )


_OVERALL = (
    *(f"overall.{name}" for name in published.ATTRIBUTE_SCORES),
    *published.STRATEGY_SCORES[len(published.ATTRIBUTE_SCORES) :],
)
_STRATEGIES = tuple(_strategy(label, _OVERALL, values) for label, values in published.STRATEGIES.items())
_BEST = Row(
    label="DSL + SSL",
    arm=_STRATEGY["DSL + SSL"],
    published={
        f"{attribute}.{score}": value
        for attribute, values in {
            **published.ATTRIBUTES,
            "overall": published.STRATEGIES["DSL + SSL"][: len(published.ATTRIBUTE_SCORES)],
        }.items()
        for score, value in zip(published.ATTRIBUTE_SCORES, values, strict=True)
    },
    ours=True,
)
_WITH_MAP = (_row("+ MAP", "PBC"), _row(OURS, "PBC"))
_DAFFNET = tuple(_row(OURS, title) for title in DATASETS)
_ABLATION = tuple(_row(label, title) for title in DATASETS for label in RECIPES)
_QUOTED = tuple(
    row
    for title, own in zip(DATASETS, _DAFFNET, strict=True)
    for row in (
        *(
            Row(label=label, group=title, published=values)
            for label, values in published.QUOTED[title].items()
        ),
        dataclasses.replace(own, label="DAFFNet"),
    )
)
_BACKBONES = tuple(
    Row(
        label=f"{label} *",
        arm=dataclasses.replace(
            arm("daffnet:resnet50", "pbc", model__semantic_name=name), imagenet=((_SEMANTIC_FILE, name),)
        ),
    )
    for label, name in BACKBONES.items()
)
_ARM_CAUTIONS = ("lisc_steps", "pbc_span", "raabin_counts", "bccd_other_set", "bccd_leak", "hard_auc")
_MAP_CAUTIONS = ("shifted_columns", "hard_auc", "class_only", "attribute_noise")


def _exhibit(key: str, title: str, kind: Kind, **fields: Any) -> Exhibit:
    return Exhibit(paper=PAPER, key=key, title=title, kind=kind, **fields)


EXHIBITS: tuple[Exhibit, ...] = (
    _exhibit("table1", "Data sets: images of each class", "data_facts", datasets=tuple(DATASETS.values())),
    _exhibit("table2", "DAFFNet on six data sets", "scores", rows=_DAFFNET, scores=SCORES, cautions=_ARM_CAUTIONS),
    _exhibit(
        "table3",
        "DAFFNet beside quoted results",
        "scores",
        rows=_QUOTED,
        scores=SCORES,
        cautions=("quoted_rows", "bccd_other_set"),
    ),
    _exhibit(
        "table4", "What each part adds", "scores", rows=_ABLATION, scores=SCORES, cautions=_ARM_CAUTIONS
    ),
    _exhibit(
        "table5",
        "Attribute predictor, by attribute",
        "attributes",
        rows=(_BEST,),
        scores=published.ATTRIBUTE_SCORES,
        cautions=_MAP_CAUTIONS,
    ),
    _exhibit(
        "table6",
        "Attribute predictor, by training strategy",
        "scores",
        rows=_STRATEGIES,
        scores=_OVERALL,
        cautions=(*_MAP_CAUTIONS, "hamming_jaccard"),
    ),
    _exhibit(
        "backbones", "Semantic backbones", "scores", rows=_BACKBONES, scores=SCORES, cautions=("backbone_arms",)
    ),
    _exhibit("figure1", "Network, from end to end", "architecture", rows=(_row(OURS, "PBC"),)),
    _exhibit("figure2", "Attribute predictor (MAP)", "architecture", rows=_STRATEGIES[1:2]),
    _exhibit("figure3", "Attribute encoder (MAE), beside MAP alone", "settings", rows=_WITH_MAP),
    _exhibit("figure4", "Steps of training", "stages", rows=(*_STRATEGIES, _row(OURS, "PBC"))),
    _exhibit("figure5", "Cells of each class and data set", "samples", datasets=tuple(DATASETS.values())),
    _exhibit("figure6", "Confusion matrices on six data sets", "confusion", rows=_DAFFNET, cautions=_ARM_CAUTIONS[:-1]),
    _exhibit(
        "figure7",
        "Confusion matrices of the eleven attributes",
        "attribute_confusion",
        rows=(_BEST,),
        cautions=("class_only",),
    ),
    _exhibit("s1", "Images of each part and class", "split_facts", datasets=tuple(DATASETS.values())),
    _exhibit("s2", "Images of each attribute value", "attribute_facts", datasets=("pbc",)),
    _exhibit(
        "s3",
        "Attribute predictor, by attribute and training strategy",
        "attributes",
        rows=(*(dataclasses.replace(row, published={}) for row in _STRATEGIES[:-1]), _BEST),
        scores=published.ATTRIBUTE_SCORES,
        cautions=_MAP_CAUTIONS,
    ),
)  # fmt: skip

"""DAFFNet: an EPSA-SA ResNet50 beside a predictor and encoder of eleven morphological attributes.

Recipe of the paper: Adam 1e-4 at a constant rate, batches of 32, up to 100 epochs, stop after 10 without a better
validation score, random crops of 224 px out of 256, 6:2:2 splits. ImageNet weights are given with
`--model.pretrained-semantic epsanet50.pth` (or resnet50's) and `--model.pretrained-map resnet50.pth`.

`daffnet` trains in three steps. The rows of Table 4 with an attribute branch take its predictor instead:
`--model.pretrained-map RUN_DIR`.
"""

from __future__ import annotations

import dataclasses

from wbc_jax.config import (
    AugmentConfig,
    Config,
    DataConfig,
    EvalConfig,
    LogConfig,
    ModelConfig,
    MorphologyConfig,
    OptimConfig,
    TrainConfig,
)

_PAPER = Config(
    data=DataConfig(dataset="pbc", task="wbc5", split="random_622", image_size_px=224, store_size_px=256),
    model=ModelConfig(name="daffnet"),
    optim=OptimConfig(name="adam", learning_rate=1e-4, schedule="constant"),
    # A crop at any whole pixel and nothing else.
    augment=AugmentConfig(
        flip=False,
        rotation_deg=(0.0, 0.0),
        translation=16 / 224,
        scale=(1.0, 1.0),
        brightness=0.0,
        contrast=0.0,
        saturation=0.0,
        hue=0.0,
        stain=0.0,
        exact_share=1.0,
        mixup_alpha=0.0,
    ),
    train=TrainConfig(epochs=100, batch_size=32, early_stop_patience_epochs=10),
    eval=EvalConfig(batch_size=64),
)
_OTHER_FIVE = ("lisc", "raabin", "bccd_kaggle", "ldwbc", "labelled")

_SMALL = Config(
    data=DataConfig(dataset="pbc", task="wbc5", image_size_px=72, store_size_px=96),
    model=ModelConfig(name="daffnet_tiny"),
    optim=OptimConfig(name="radam", learning_rate=2e-3, schedule="cosine", weight_decay=1e-2, ema_decay=0.99),
    # The size of the cell is one of the attributes, so nothing is zoomed.
    augment=AugmentConfig(
        scale=(1.0, 1.0),
        brightness=0.05,
        contrast=0.05,
        saturation=0.05,
        hue=0.01,
        stain=0.03,
        mixup_alpha=0.0,
    ),
    train=TrainConfig(epochs=12, batch_size=32),
    eval=EvalConfig(batch_size=64, every_epochs=2, flip_average=True),
    log=LogConfig(every_steps=20),
)


def three_step() -> Config:
    """DAFFNet at full size on PBC in three steps, with pseudo-labels on five other data sets (Table 2)."""
    return dataclasses.replace(
        _PAPER, morphology=MorphologyConfig(three_step=True, other_datasets=_OTHER_FIVE)
    )


def tiny() -> Config:
    """All steps on small networks and the embedded data sets, minutes on two CPU cores."""
    return dataclasses.replace(
        _SMALL,
        data=DataConfig(
            dataset="synthetic_smear", image_size_px=48, store_size_px=56, max_images_per_class=240
        ),
        optim=dataclasses.replace(_SMALL.optim, ema_decay=0.9),
        train=TrainConfig(epochs=4, batch_size=32),
        eval=EvalConfig(batch_size=64, every_epochs=2),
        morphology=MorphologyConfig(
            three_step=True,
            other_datasets=("synthetic_smear_plain",),
            map_epochs=6,
            mixed_epochs=4,
            mixed_start="map",
        ),
    )


def resnet50() -> Config:
    """Table 4, first row: ResNet50 alone."""
    return _row(_PAPER, semantic_name="resnet50", spatial_gate="none", morphology="none")


def epsa() -> Config:
    """Table 4, + EPSA: pyramid squeeze attention in place of each 3x3 convolution."""
    return _row(_PAPER, spatial_gate="none", morphology="none")


def epsa_sa() -> Config:
    """Table 4, + SA: the spatial gate in each block."""
    return _row(_PAPER, morphology="none")


def map_code() -> Config:
    """Table 4, + MAP: predicted attributes straight into the decoder; needs --model.pretrained-map."""
    return _row(_PAPER, morphology="map")


def tiny_resnet50() -> Config:
    """Table 4, first row, small: a ResNet alone on PBC, 72 px."""
    return _row(_SMALL, semantic_name="resnet_bottleneck_tiny", spatial_gate="none", morphology="none")


def tiny_epsa() -> Config:
    """Table 4, + EPSA, small."""
    return _row(_SMALL, spatial_gate="none", morphology="none")


def tiny_epsa_sa() -> Config:
    """Table 4, + SA, small."""
    return _row(_SMALL, morphology="none")


def tiny_map_code() -> Config:
    """Table 4, + MAP, small; needs --model.pretrained-map, a run of daffnet:map_tiny."""
    return _row(_SMALL, morphology="map")


def tiny_pbc() -> Config:
    """Table 4, + MAE, small: the whole network; needs --model.pretrained-map, a run of daffnet:map_tiny."""
    return _SMALL


def map_official() -> Config:
    """Attribute predictor at full size with deep supervision, on WBCAtt's official split."""
    arm = map_dsl()
    return dataclasses.replace(arm, data=dataclasses.replace(arm.data, split="auto"))


def map_plain() -> Config:
    """Table 6, plain: attributes only."""
    return _predictor(attribute_share=1.0)


def map_dsl() -> Config:
    """Table 6, DSL: attributes 0.8, classes 0.2."""
    return _predictor(attribute_share=0.8)


def map_dsl_ssl() -> Config:
    """Table 6, DSL + SSL: again with pseudo-labels on five other data sets."""
    return dataclasses.replace(
        map_dsl(), morphology=MorphologyConfig(three_step=True, other_datasets=_OTHER_FIVE)
    )


def map_tiny() -> Config:
    """Small attribute predictor on PBC with WBCAtt's official split, from scratch, on two CPU cores."""
    return dataclasses.replace(
        _SMALL,
        model=ModelConfig(name="map_tiny"),
        train=TrainConfig(epochs=24, batch_size=32, attribute_share=0.8),
        eval=dataclasses.replace(_SMALL.eval, select="attribute_accuracy"),
    )


def _row(base: Config, **model_fields: object) -> Config:
    return dataclasses.replace(base, model=dataclasses.replace(base.model, **model_fields))  # pyright: ignore[reportArgumentType]


def _predictor(attribute_share: float) -> Config:
    return dataclasses.replace(
        _PAPER,
        model=ModelConfig(name="map_resnet50"),
        train=dataclasses.replace(_PAPER.train, attribute_share=attribute_share),
        eval=dataclasses.replace(_PAPER.eval, select="attribute_accuracy"),
    )


VARIANTS = {
    None: three_step,
    "tiny": tiny,
    "resnet50": resnet50,
    "epsa": epsa,
    "epsa_sa": epsa_sa,
    "map_code": map_code,
    "tiny_resnet50": tiny_resnet50,
    "tiny_epsa": tiny_epsa,
    "tiny_epsa_sa": tiny_epsa_sa,
    "tiny_map_code": tiny_map_code,
    "tiny_pbc": tiny_pbc,
    "map": map_official,
    "map_plain": map_plain,
    "map_dsl": map_dsl,
    "map_dsl_ssl": map_dsl_ssl,
    "map_tiny": map_tiny,
}

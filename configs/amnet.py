"""WBC-AMNet (PLoS ONE 17(1) e0261848, 2022): SE-ResNeXt50 with focalised attention on its first and last features.

Stated by the paper: 224 px, rotation by -14 to 15 degrees, random crops, flips and colour distortion, 20 epochs,
batches of 32, a learning rate that falls in steps. Its wording matches a PaddlePaddle template, whose usual values
stand here for what it leaves open: momentum SGD 0.9 at 1e-3, crop area 0.08-1 and ratio 3/4-4/3, each colour change
with probability 0.5 (hue 18 degrees, contrast and saturation 0.5, brightness 0.125), dropout 0.5. The template's
factors of the learning rate divide 120 epochs into six equal parts; here they divide the run so.

Our further arms are single flags: `--model.no-use-se`, `--model.no-use-ge`, `--model.no-use-fusion`,
`--model.first-features stem7x7_2048`, `--model.ge-kind`, `--model.ge-extent`, `--model.input-scaling half`. The
search of Table 3 is `for_length(tri(), epochs, batch_size)` over `SEARCH`.
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
    OptimConfig,
    TrainConfig,
)

FACTORS = (0.5, 0.25, 0.1, 0.01, 0.002)
"""Shares of the peak learning rate in the second to sixth sixth of a run."""

SEARCH = ((15, 32), (20, 16), (20, 32), (25, 32), (30, 32))
"""Epochs and batch sizes of Table 3, tried on BCCD's three classes."""


def for_length(config: Config, epochs: int, batch_size: int) -> Config:
    """The recipe for another length and batch size; the learning rate falls at the same shares of the run."""
    steps = len(FACTORS) + 1
    drops = tuple(round(epochs * part / steps, 3) for part in range(1, steps))
    optim = dataclasses.replace(
        config.optim, schedule="piecewise", piecewise_epochs=drops, piecewise_factors=FACTORS
    )
    train = dataclasses.replace(config.train, epochs=epochs, batch_size=batch_size)
    return dataclasses.replace(config, optim=optim, train=train)


def paper() -> Config:
    """WBC-AMNet at full size on BCCD's four classes, 224 px, momentum SGD in steps, 20 epochs."""
    config = Config(
        data=DataConfig(dataset="bccd_kaggle", task="wbc4", image_size_px=224, store_size_px=224),
        model=ModelConfig(name="amnet", dropout_rate=0.5),
        optim=OptimConfig(name="sgd", learning_rate=1e-3, momentum=0.9),
        augment=AugmentConfig(
            rotation_deg=(-14.0, 15.0),
            translation=0.0,
            scale=(1.0, 1.0),
            crop_area=(0.08, 1.0),
            crop_ratio=(3 / 4, 4 / 3),
            brightness=0.125,
            contrast=0.5,
            saturation=0.5,
            hue=18 / 360,
            colour_probability=0.5,
            exact_share=0.0,
            stain=0.0,
            mixup_alpha=0.0,
        ),
        eval=EvalConfig(batch_size=64),
    )
    return for_length(config, epochs=20, batch_size=32)


def tri() -> Config:
    """WBC-AMNet at full size on BCCD's three classes: monocytes and neutrophils are one (MTD)."""
    return _on(paper(), dataset="bccd_kaggle", task="mtd3")


def wbcs_quad() -> Config:
    """WBC-AMNet at full size on WBCs' four classes, split 6:2:2."""
    return _on(paper(), dataset="wbcs", task="wbc4")


def wbcs_tri() -> Config:
    """WBC-AMNet at full size on WBCs' three classes: monocytes and eosinophils are one (intermediate cell)."""
    return _on(paper(), dataset="wbcs", task="intermediate3")


def tiny() -> Config:
    """Small WBC-AMNet at 80 px on BCCD's four classes from random weights, minutes on two CPU cores."""
    return Config(
        data=DataConfig(dataset="bccd_kaggle", task="wbc4", image_size_px=80, store_size_px=88),
        model=ModelConfig(name="amnet_tiny", dropout_rate=0.2),
        optim=OptimConfig(
            name="radam", learning_rate=2e-3, schedule="cosine", weight_decay=1e-2, ema_decay=0.99
        ),
        augment=AugmentConfig(
            brightness=0.05, contrast=0.05, saturation=0.05, hue=0.01, stain=0.03, mixup_alpha=0.0
        ),
        train=TrainConfig(epochs=16, batch_size=32),
        eval=EvalConfig(batch_size=64, every_epochs=2, flip_average=True),
        log=LogConfig(every_steps=5),
    )


def _on(config: Config, **changes: object) -> Config:
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **changes))  # type: ignore[arg-type]


VARIANTS = {None: paper, "tri": tri, "wbcs_quad": wbcs_quad, "wbcs_tri": wbcs_tri, "tiny": tiny}

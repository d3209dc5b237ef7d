"""SCAM (BMC Bioinformatics 23:282, 2022): ResNet50 beside DenseNet121, fused, spatial-then-channel attention.

The arms of the paper's tables are single flags on these recipes: `--augment.mixup-alpha` (Table 4),
`--model.attention` (Tables 5, 6), `--model.branches` (Table 7), `--model.pretrained-resnet` and
`--model.pretrained-densenet` (Tables 8, 9). Learning rate, batch size and epochs
stand in a table outside the text; the values here are our reading of it.
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


def paper() -> Config:
    """SCAM at full size from random weights, 224 px, RAdam 1e-3, mixup 0.2."""
    return Config(
        data=DataConfig(dataset="pbc", image_size_px=224, store_size_px=256),
        model=ModelConfig(name="scam", dropout_rate=0.5),
        optim=OptimConfig(name="radam", learning_rate=1e-3, schedule="constant"),
        augment=AugmentConfig(mixup_alpha=0.2),
        train=TrainConfig(epochs=50, batch_size=32),
        eval=EvalConfig(batch_size=64),
    )


def finetune() -> Config:
    """SCAM at full size for ImageNet weights (give --model.pretrained-resnet and -densenet), RAdam 1e-4."""
    base = paper()
    return dataclasses.replace(base, optim=dataclasses.replace(base.optim, learning_rate=1e-4))


def tiny() -> Config:
    """Small SCAM at 64 px from random weights: real images in minutes on two CPU cores."""
    return Config(
        data=DataConfig(dataset="pbc", image_size_px=64, store_size_px=72),
        model=ModelConfig(name="scam_tiny", dropout_rate=0.2),
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


VARIANTS = {None: paper, "finetune": finetune, "tiny": tiny}

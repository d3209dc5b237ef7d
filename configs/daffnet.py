"""DAFFNet: an EPSA-SA ResNet50 beside a predictor and encoder of eleven morphological attributes.

Recipe of the paper: Adam 1e-4 at a constant rate, batches of 32, up to 100 epochs, stop after 10 without a better
validation score, random crops of 224 px out of 256. The attribute predictor (MAP) learns from WBCAtt's images.
"""

from __future__ import annotations

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


def map_tiny() -> Config:
    """Small attribute predictor on PBC with WBCAtt's official split, from scratch, on two CPU cores."""
    return Config(
        data=DataConfig(dataset="pbc", task="wbc5", image_size_px=72, store_size_px=96),
        model=ModelConfig(name="map_tiny"),
        optim=OptimConfig(
            name="radam", learning_rate=2e-3, schedule="cosine", weight_decay=1e-2, ema_decay=0.99
        ),
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
        train=TrainConfig(epochs=40, batch_size=32, attribute_share=0.8),
        eval=EvalConfig(batch_size=64, every_epochs=2, select="attribute_accuracy", flip_average=True),
        log=LogConfig(every_steps=20),
    )


VARIANTS = {"map_tiny": map_tiny}

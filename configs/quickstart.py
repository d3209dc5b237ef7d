"""The first run: a small SCAM on the embedded data set, minutes on two CPU cores."""

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


def quickstart() -> Config:
    """Small SCAM on the embedded synthetic smear; needs no download."""
    return Config(
        data=DataConfig(dataset="synthetic_smear", image_size_px=64, store_size_px=72),
        model=ModelConfig(name="scam_tiny", dropout_rate=0.2),
        optim=OptimConfig(
            name="radam", learning_rate=2e-3, schedule="cosine", weight_decay=1e-2, ema_decay=0.98
        ),
        augment=AugmentConfig(mixup_alpha=0.0),
        train=TrainConfig(epochs=8, batch_size=32),
        eval=EvalConfig(batch_size=128),
        log=LogConfig(every_steps=5),
    )


VARIANTS = {None: quickstart}

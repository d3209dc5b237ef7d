"""Speed: seconds to 98 % balanced accuracy on real images, in the spirit of the CIFAR speed records.

What is meant to make it quick on a CPU: few pixels, and fewest in the early epochs (progressive image size), plain
3x3 convolutions behind an early stride, classes drawn equally often, one learning rate cycle, averaged weights.
`benchmarks/time_to_accuracy.py` measures it.
"""

from __future__ import annotations

from wbc_jax.config import (
    AugmentConfig,
    CheckpointConfig,
    Config,
    DataConfig,
    EvalConfig,
    LogConfig,
    ModelConfig,
    OptimConfig,
    TrainConfig,
)


def speed() -> Config:
    """Narrow ResNet on PBC with WBCAtt's split, 32 then 40 px: 98 % in the least time."""
    return Config(
        data=DataConfig(dataset="pbc", image_size_px=40, store_size_px=54, balance="sampling"),
        model=ModelConfig(name="resnet_micro"),
        optim=OptimConfig(
            name="adam",
            learning_rate=4e-3,
            schedule="cosine",
            warmup_epochs=1.0,
            weight_decay=2e-2,
            ema_decay=0.98,
        ),
        augment=AugmentConfig(
            brightness=0.05, contrast=0.05, saturation=0.05, hue=0.01, stain=0.03, mixup_alpha=0.0
        ),
        train=TrainConfig(epochs=7, batch_size=64, label_smoothing=0.1, image_size_schedule=((5, 32),)),
        eval=EvalConfig(batch_size=128, select="balanced_accuracy"),
        checkpoint=CheckpointConfig(keep=1),
        log=LogConfig(every_steps=20, tensorboard=False),
    )


VARIANTS = {None: speed}

"""The rules of progressive image size. [pure]"""

from __future__ import annotations

from collections.abc import Iterator

from wbc_jax.config import Config
from wbc_jax.config_problem import Problem

SMALLEST_IMAGE_PX = 16


def image_size_problems(config: Config) -> Iterator[Problem]:
    """Problems of `train.image_size_schedule`: at most one of its epochs and one of its sizes."""
    schedule, full_px = config.train.image_size_schedule, config.data.image_size_px
    epochs, sizes = [epoch for epoch, _ in schedule], [size for _, size in schedule]
    rules = (
        (
            all(0 < epoch < config.train.epochs for epoch in epochs) and epochs == sorted(set(epochs)),
            f"its epochs must rise, above 0 and below train.epochs ({config.train.epochs})",
        ),
        (
            all(SMALLEST_IMAGE_PX <= size < full_px for size in sizes) and sizes == sorted(set(sizes)),
            f"its sizes must rise, from {SMALLEST_IMAGE_PX} px to below data.image_size_px ({full_px})",
        ),
    )
    for holds, rule in rules:
        if not holds:
            yield Problem(
                path="train.image_size_schedule",
                value=schedule,
                rule=rule,
                suggestion="for example ((4, 128), (8, 160)) for 12 epochs at 224 px; () for one size",
            )

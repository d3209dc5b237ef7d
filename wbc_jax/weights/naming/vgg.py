"""VGG under torchvision's names (`models/vgg.py`): convolutions numbered through `features`, pools included."""

from __future__ import annotations

from collections.abc import Iterator

from wbc_jax.weights.naming.leaf import Leaf, conv, linear

VGGS: dict[str, tuple[int, ...]] = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
"""Convolutions per stage."""
WIDTHS = (64, 128, 256, 512, 512)


def vgg_leaves(stage_sizes: tuple[int, ...], num_classes: int | None) -> Iterator[Leaf]:
    """Every array in torchvision's order."""
    position, channels = 0, 3
    for stage, (size, width) in enumerate(zip(stage_sizes, WIDTHS, strict=True), start=1):
        for index in range(1, size + 1):
            yield from conv(f"features.{position}", f"conv{stage}_{index}", 3, channels, width, bias=True)
            position, channels = position + 2, width  # a ReLU behind each
        position += 1  # the pool
    yield from linear("classifier.0", "fc1", 7 * 7 * channels, 4096)
    yield from linear("classifier.3", "fc2", 4096, 4096)
    if num_classes is not None:
        yield from linear("classifier.6", "classifier", 4096, num_classes)

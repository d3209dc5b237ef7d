"""AlexNet under torchvision's names (`models/alexnet.py`): numbered through `features`, ReLUs and pools included."""

from __future__ import annotations

from collections.abc import Iterator

from wbc_jax.weights.naming.leaf import Leaf, conv, linear

_CONVOLUTIONS = ((0, 11, 64), (3, 5, 192), (6, 3, 384), (8, 3, 256), (10, 3, 256))
"""Place in `features`, side of the window, channels."""


def alexnet_leaves(num_classes: int | None) -> Iterator[Leaf]:
    """Every array in torchvision's order."""
    channels = 3
    for index, (place, size, width) in enumerate(_CONVOLUTIONS, start=1):
        yield from conv(f"features.{place}", f"conv{index}", size, channels, width, bias=True)
        channels = width
    yield from linear("classifier.1", "fc1", 6 * 6 * channels, 4096)
    yield from linear("classifier.4", "fc2", 4096, 4096)
    if num_classes is not None:
        yield from linear("classifier.6", "classifier", 4096, num_classes)

"""DenseNet under torchvision's names (`models/densenet.py`)."""

from __future__ import annotations

from collections.abc import Iterator

from wbc_jax.weights.naming.leaf import Leaf, conv, linear, norm

DENSENETS: dict[str, tuple[int, ...]] = {
    "densenet121": (6, 12, 24, 16),
    "densenet169": (6, 12, 32, 32),
    "densenet201": (6, 12, 48, 32),
}
"""Dense layers per block; growth 32, bottleneck factor 4, 64 channels after the stem."""


def densenet_leaves(block_sizes: tuple[int, ...], num_classes: int | None) -> Iterator[Leaf]:
    """Every array in torchvision's order."""
    growth, bottleneck = 32, 128
    yield from conv("features.conv0", "conv0", 7, 3, 64)
    yield from norm("features.norm0", "norm0", 64)
    channels = 64
    for block, layers in enumerate(block_sizes, start=1):
        for layer in range(1, layers + 1):
            theirs, ours = f"features.denseblock{block}.denselayer{layer}", f"block{block}_layer{layer}"
            yield from norm(f"{theirs}.norm1", f"{ours}/norm1", channels)
            yield from conv(f"{theirs}.conv1", f"{ours}/conv1", 1, channels, bottleneck)
            yield from norm(f"{theirs}.norm2", f"{ours}/norm2", bottleneck)
            yield from conv(f"{theirs}.conv2", f"{ours}/conv2", 3, bottleneck, growth)
            channels += growth
        if block < len(block_sizes):
            theirs, ours = f"features.transition{block}", f"transition{block}"
            yield from norm(f"{theirs}.norm", f"{ours}/norm", channels)
            yield from conv(f"{theirs}.conv", f"{ours}/conv", 1, channels, channels // 2)
            channels //= 2
    yield from norm("features.norm5", "norm5", channels)
    if num_classes is not None:
        yield from linear("classifier", "classifier", channels, num_classes)

"""MobileNetV2 under torchvision's names (`models/mobilenetv2.py`): blocks numbered through `features`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from wbc_jax.weights.naming.leaf import Leaf, conv_norm, linear


@dataclass(frozen=True)
class MobileNetV2Form:
    """Channels and blocks of one MobileNetV2."""

    stem: int = 32
    stages: tuple[tuple[int, int, int], ...] = (
        (1, 16, 1),
        (6, 24, 2),
        (6, 32, 3),
        (6, 64, 4),
        (6, 96, 3),
        (6, 160, 3),
        (6, 320, 1),
    )
    """Expansion, channels and blocks of each stage."""
    widened: int = 1280

    def leaves(self, num_classes: int | None) -> Iterator[Leaf]:
        """Every array in torchvision's order."""
        yield from conv_norm("features.0.0", "features.0.1", "stem", 3, 3, self.stem)
        place, channels = 1, self.stem
        for stage, (expansion, width, blocks) in enumerate(self.stages, start=1):
            for index in range(blocks):
                yield from _block(
                    f"features.{place}.conv", f"stage{stage}_{index}", channels, expansion, width
                )
                place, channels = place + 1, width
        yield from conv_norm(f"features.{place}.0", f"features.{place}.1", "widen", 1, channels, self.widened)
        if num_classes is not None:
            yield from linear("classifier.1", "classifier", self.widened, num_classes)


def _block(theirs: str, ours: str, channels: int, expansion: int, width: int) -> Iterator[Leaf]:
    """Layers are counted within the block, and there is no first one where nothing is expanded."""
    hidden, layer = expansion * channels, 0
    if expansion != 1:
        yield from conv_norm(f"{theirs}.0.0", f"{theirs}.0.1", f"{ours}/expand", 1, channels, hidden)
        layer = 1
    depthwise = f"{theirs}.{layer}"
    yield from conv_norm(
        f"{depthwise}.0", f"{depthwise}.1", f"{ours}/depthwise", 3, hidden, hidden, groups=hidden
    )
    yield from conv_norm(
        f"{theirs}.{layer + 1}", f"{theirs}.{layer + 2}", f"{ours}/project", 1, hidden, width
    )


MOBILENETS_V2: dict[str, MobileNetV2Form] = {"mobilenet_v2": MobileNetV2Form()}

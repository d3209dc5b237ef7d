"""ShuffleNetV2 under torchvision's names (`models/shufflenetv2.py`): layers counted within each branch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from wbc_jax.weights.naming.leaf import Leaf, conv_norm, linear


@dataclass(frozen=True)
class ShuffleNetV2Form:
    """Units and channels per stage of one ShuffleNetV2."""

    stage_sizes: tuple[int, ...] = (4, 8, 4)
    widths: tuple[int, ...] = (116, 232, 464)
    stem: int = 24
    widened: int = 1024

    def leaves(self, num_classes: int | None) -> Iterator[Leaf]:
        """Every array in torchvision's order."""
        yield from conv_norm("conv1.0", "conv1.1", "conv1", 3, 3, self.stem)
        channels = self.stem
        for stage, (size, width) in enumerate(zip(self.stage_sizes, self.widths, strict=True), start=2):
            for index in range(size):
                yield from _unit(
                    f"stage{stage}.{index}", f"stage{stage}_{index}", channels, width, index == 0
                )
                channels = width
        yield from conv_norm("conv5.0", "conv5.1", "conv5", 1, channels, self.widened)
        if num_classes is not None:
            yield from linear("fc", "fc", self.widened, num_classes)


def _unit(theirs: str, ours: str, channels: int, width: int, halves: bool) -> Iterator[Leaf]:
    half = width // 2
    if halves:  # the map's sides, so branch1 is not the identity
        branch, path = f"{theirs}.branch1", f"{ours}/branch1"
        yield from conv_norm(
            f"{branch}.0", f"{branch}.1", f"{path}_depthwise", 3, channels, channels, groups=channels
        )
        yield from conv_norm(f"{branch}.2", f"{branch}.3", f"{path}_project", 1, channels, half)
    branch, path = f"{theirs}.branch2", f"{ours}/branch2"
    inputs = channels if halves else half
    yield from conv_norm(f"{branch}.0", f"{branch}.1", f"{path}_expand", 1, inputs, half)
    yield from conv_norm(f"{branch}.3", f"{branch}.4", f"{path}_depthwise", 3, half, half, groups=half)
    yield from conv_norm(f"{branch}.5", f"{branch}.6", f"{path}_project", 1, half, half)


SHUFFLENETS_V2: dict[str, ShuffleNetV2Form] = {"shufflenet_v2_x1_0": ShuffleNetV2Form()}

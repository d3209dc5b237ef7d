"""MobileNetV1 under timm's names (`mobilenetv1_100`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from wbc_jax.weights.naming.leaf import Leaf, conv_norm, linear


@dataclass(frozen=True)
class MobileNetV1Form:
    """Blocks and channels per stage of one MobileNetV1."""

    stage_sizes: tuple[int, ...] = (1, 2, 2, 6, 2)
    widths: tuple[int, ...] = (64, 128, 256, 512, 1024)
    stem: int = 32

    def leaves(self, num_classes: int | None) -> Iterator[Leaf]:
        """Every array in timm's order."""
        yield from conv_norm("conv_stem", "bn1", "stem", 3, 3, self.stem)
        channels = self.stem
        for stage, (size, width) in enumerate(zip(self.stage_sizes, self.widths, strict=True)):
            for index in range(size):
                theirs, ours = f"blocks.{stage}.{index}", f"stage{stage + 1}_{index}"
                yield from conv_norm(
                    f"{theirs}.conv_dw",
                    f"{theirs}.bn1",
                    f"{ours}_depthwise",
                    3,
                    channels,
                    channels,
                    groups=channels,
                )
                yield from conv_norm(
                    f"{theirs}.conv_pw", f"{theirs}.bn2", f"{ours}_pointwise", 1, channels, width
                )
                channels = width
        if num_classes is not None:
            yield from linear("classifier", "classifier", channels, num_classes)


MOBILENETS_V1: dict[str, MobileNetV1Form] = {"mobilenet_v1": MobileNetV1Form()}

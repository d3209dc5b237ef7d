"""ResNet and its relatives under torchvision's names (`models/resnet.py`).

SE layers are those of timm's `seresnet50` and `seresnext50_32x4d`: `se.fc1`, `se.fc2` in every block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from wbc_jax.weights.naming.leaf import Leaf, conv, linear, norm, square_linear

Depths = tuple[int, int, int, int]


@dataclass(frozen=True)
class ResNetForm:
    """What distinguishes one ResNet from another: blocks per stage, their kind, groups, width, gate."""

    depths: Depths
    basic: bool = False
    """Two 3x3 convolutions per block; otherwise bottlenecks."""
    groups: int = 1
    width_per_group: int = 64
    """Channels of one group in the first stage; doubles per stage."""
    squeeze_excite: bool = False

    def leaves(self, num_classes: int | None) -> Iterator[Leaf]:
        """Every array in torchvision's order."""
        yield from conv("conv1", "conv1", 7, 3, 64)
        yield from norm("bn1", "bn1", 64)
        channels = 64
        for stage, blocks in enumerate(self.depths, start=1):
            width = 64 * 2 ** (stage - 1)
            outputs = width if self.basic else 4 * width
            for index in range(blocks):
                theirs, ours = f"layer{stage}.{index}", f"layer{stage}_{index}"
                yield from (self._basic if self.basic else self._bottleneck)(theirs, ours, channels, width)
                if channels != outputs:  # only the first block of a stage changes shape, so only it projects
                    yield from conv(f"{theirs}.downsample.0", f"{ours}/downsample_conv", 1, channels, outputs)
                    yield from norm(f"{theirs}.downsample.1", f"{ours}/downsample_bn", outputs)
                channels = outputs
        if num_classes is not None:
            yield from linear("fc", "fc", channels, num_classes)

    def _basic(self, theirs: str, ours: str, inputs: int, width: int) -> Iterator[Leaf]:
        for index, conv_in in enumerate((inputs, width), start=1):
            yield from conv(f"{theirs}.conv{index}", f"{ours}/conv{index}", 3, conv_in, width)
            yield from norm(f"{theirs}.bn{index}", f"{ours}/bn{index}", width)

    def _bottleneck(self, theirs: str, ours: str, inputs: int, width: int) -> Iterator[Leaf]:
        inner, outputs = width * self.width_per_group // 64 * self.groups, 4 * width
        sizes = ((1, inputs, inner, 1), (3, inner, inner, self.groups), (1, inner, outputs, 1))
        for index, (kernel, conv_in, conv_out, groups) in enumerate(sizes, start=1):
            theirs_conv, ours_conv = f"{theirs}.conv{index}", f"{ours}/conv{index}"
            yield from conv(theirs_conv, ours_conv, kernel, conv_in, conv_out, groups=groups)
            yield from norm(f"{theirs}.bn{index}", f"{ours}/bn{index}", conv_out)
        if self.squeeze_excite:
            yield from square_linear(f"{theirs}.se.fc1", f"{ours}/se/squeeze", outputs, outputs // 16)
            yield from square_linear(f"{theirs}.se.fc2", f"{ours}/se/excite", outputs // 16, outputs)


RESNETS: dict[str, ResNetForm] = {
    "resnet18": ResNetForm((2, 2, 2, 2), basic=True),
    "resnet34": ResNetForm((3, 4, 6, 3), basic=True),
    "resnet50": ResNetForm((3, 4, 6, 3)),
    "resnet101": ResNetForm((3, 4, 23, 3)),
    "resnet152": ResNetForm((3, 8, 36, 3)),
    "resnext50_32x4d": ResNetForm((3, 4, 6, 3), groups=32, width_per_group=4),
}

SE_RESNETS: dict[str, ResNetForm] = {
    "se_resnet50": ResNetForm((3, 4, 6, 3), squeeze_excite=True),
    "se_resnext50_32x4d": ResNetForm((3, 4, 6, 3), groups=32, width_per_group=4, squeeze_excite=True),
}
"""torchvision has no module of these; the names are timm's."""

"""Dual path networks under timm's names (`models/dpn.py`): blocks counted from 1 behind `conv1`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from wbc_jax.weights.naming.leaf import Leaf, conv, conv_norm, norm, square_linear


@dataclass(frozen=True)
class DPNForm:
    """Blocks, growth and channels of one dual path network; fields as in the network."""

    stage_sizes: tuple[int, ...]
    growths: tuple[int, ...]
    residual: int
    inner: int
    stem: int
    stem_kernel: int
    groups: int = 32

    def leaves(self, num_classes: int | None) -> Iterator[Leaf]:
        """Every array in timm's order."""
        stem = "features.conv1_1"
        yield from conv_norm(f"{stem}.conv", f"{stem}.bn", "stem", self.stem_kernel, 3, self.stem)
        channels = self.stem
        for stage, (size, growth) in enumerate(zip(self.stage_sizes, self.growths, strict=True), start=1):
            residual, inner = self.residual * 2 ** (stage - 1), self.inner * 2 ** (stage - 1)
            for index in range(size):
                theirs, ours = f"features.conv{stage + 1}_{index + 1}", f"stage{stage}_{index}"
                if index == 0:
                    name = f"{theirs}.c1x1_w_s{1 if stage == 1 else 2}"
                    yield from _norm_conv(name, f"{ours}/project", 1, channels, residual + 2 * growth)
                yield from _norm_conv(f"{theirs}.c1x1_a", f"{ours}/reduce", 1, channels, inner)
                yield from _norm_conv(f"{theirs}.c3x3_b", f"{ours}/mix", 3, inner, inner, self.groups)
                yield from _norm_conv(f"{theirs}.c1x1_c", f"{ours}/expand", 1, inner, residual + growth)
                channels = residual + 3 * growth if index == 0 else channels + growth
        yield from norm("features.conv5_bn_ac.bn", "norm", channels)
        if num_classes is not None:
            yield from square_linear("classifier", "classifier", channels, num_classes)


def _norm_conv(
    theirs: str, ours: str, kernel: int, inputs: int, outputs: int, groups: int = 1
) -> Iterator[Leaf]:
    yield from norm(f"{theirs}.bn", f"{ours}/bn", inputs)
    yield from conv(f"{theirs}.conv", f"{ours}/conv", kernel, inputs, outputs, groups=groups)


DPNS: dict[str, DPNForm] = {
    "dpn68": DPNForm((3, 4, 12, 3), (16, 32, 32, 64), residual=64, inner=128, stem=10, stem_kernel=3),
    "dpn92": DPNForm((3, 4, 20, 3), (16, 32, 24, 128), residual=256, inner=96, stem=64, stem_kernel=7),
}

"""Inception-v4 under timm's names (`models/inception_v4.py`): blocks numbered through `features`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from wbc_jax.models.zoo.inception_blocks import BLOCKS, STEM, Branch, Fork, Unit, layout
from wbc_jax.weights.naming.leaf import Leaf, conv_norm, linear


@dataclass(frozen=True)
class InceptionV4Form:
    """How often each kind of block is repeated."""

    repeats: tuple[int, int, int] = (4, 7, 3)

    def leaves(self, num_classes: int | None) -> Iterator[Leaf]:
        """Every array; blocks in timm's order."""
        channels = 3
        for index, unit in enumerate(STEM):
            yield from _unit(f"features.{index}", f"stem_{index}", channels, unit)
            channels = unit.features
        for place, (name, kind) in enumerate(layout(self.repeats), start=len(STEM)):
            outputs = 0
            for index, branch in enumerate(BLOCKS[kind]):
                theirs = f"features.{place}.{_branch_name(kind, index)}"
                yield from _branch(theirs, f"{name}/branch{index}", channels, branch)
                outputs += _outputs(branch, channels)
            channels = outputs
        if num_classes is not None:
            yield from linear("last_linear", "fc", channels, num_classes)


def _branch_name(kind: str, index: int) -> str:
    return "conv" if kind in ("stem_3a", "stem_5a") else f"branch{index}"


def _branch(theirs: str, ours: str, channels: int, branch: Branch) -> Iterator[Leaf]:
    """Places count pools, as in a Sequential; a branch of one convolution has none, one with a fork is written flat."""
    forks = isinstance(branch[-1], Fork)
    position = 0
    for place, step in enumerate(branch):
        name = theirs if len(branch) == 1 else f"{theirs}{'_' if forks else '.'}{place}"
        if isinstance(step, Unit):
            yield from _unit(name, f"{ours}_{position}", channels, step)
            channels, position = step.features, position + 1
        elif isinstance(step, Fork):
            for side, unit in zip("ab", step.units, strict=True):
                yield from _unit(f"{name}{side}", f"{ours}_{position}{side}", channels, unit)


def _unit(theirs: str, ours: str, channels: int, unit: Unit) -> Iterator[Leaf]:
    yield from conv_norm(f"{theirs}.conv", f"{theirs}.bn", ours, unit.window, channels, unit.features)


def _outputs(branch: Branch, channels: int) -> int:
    last = branch[-1]
    if isinstance(last, Fork):
        return sum(unit.features for unit in last.units)
    return last.features if isinstance(last, Unit) else channels


INCEPTIONS_V4: dict[str, InceptionV4Form] = {"inception_v4": InceptionV4Form()}

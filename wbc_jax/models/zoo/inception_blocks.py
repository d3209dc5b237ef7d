"""What each block of Inception-v4 consists of (Szegedy et al. 2017, figures 3-9), as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Unit:
    """A convolution with norm and ReLU; `valid`: without padding."""

    features: int
    window: tuple[int, int] = (1, 1)
    stride: int = 1
    valid: bool = False

    @property
    def padding(self) -> tuple[int, int]:
        height, width = self.window
        return (0, 0) if self.valid else (height // 2, width // 2)


@dataclass(frozen=True)
class Fork:
    """Two convolutions of the same map, side by side."""

    units: tuple[Unit, Unit]


Pool = Literal["average", "maximum"]
"""3x3: average with stride 1, padding not counted; maximum with stride 2, without padding."""
Step = Unit | Fork | Pool
Branch = tuple[Step, ...]


def _square(features: int, size: int, stride: int = 1, *, valid: bool = False) -> Unit:
    return Unit(features, (size, size), stride, valid)


def _row(features: int, size: int = 7) -> Unit:
    return Unit(features, (1, size))


def _column(features: int, size: int = 7) -> Unit:
    return Unit(features, (size, 1))


def _halving(features: int) -> Unit:
    return _square(features, 3, 2, valid=True)


STEM: tuple[Unit, ...] = (_halving(32), _square(32, 3, valid=True), _square(64, 3))

BLOCKS: dict[str, tuple[Branch, ...]] = {
    "stem_3a": (("maximum",), (_halving(96),)),
    "stem_4a": (
        (Unit(64), _square(96, 3, valid=True)),
        (Unit(64), _row(64), _column(64), _square(96, 3, valid=True)),
    ),
    "stem_5a": ((_halving(192),), ("maximum",)),
    "a": (
        (Unit(96),),
        (Unit(64), _square(96, 3)),
        (Unit(64), _square(96, 3), _square(96, 3)),
        ("average", Unit(96)),
    ),
    "reduce_a": (
        (_halving(384),),
        (Unit(192), _square(224, 3), _halving(256)),
        ("maximum",),
    ),
    "b": (
        (Unit(384),),
        (Unit(192), _row(224), _column(256)),
        (Unit(192), _column(192), _row(224), _column(224), _row(256)),
        ("average", Unit(128)),
    ),
    "reduce_b": (
        (Unit(192), _halving(192)),
        (Unit(256), _row(256), _column(320), _halving(320)),
        ("maximum",),
    ),
    "c": (
        (Unit(256),),
        (Unit(384), Fork((_row(256, 3), _column(256, 3)))),
        (Unit(384), _column(448, 3), _row(512, 3), Fork((_row(256, 3), _column(256, 3)))),
        ("average", Unit(256)),
    ),
}
"""Branches by kind of block; their results are concatenated."""


def layout(repeats: tuple[int, int, int]) -> tuple[tuple[str, str], ...]:
    """(Name, kind) of every block behind the stem's convolutions, in order."""
    blocks = [(kind, kind) for kind in ("stem_3a", "stem_4a", "stem_5a")]
    for kind, size, then in zip("abc", repeats, ("reduce_a", "reduce_b", None), strict=True):
        blocks += [(f"{kind}_{index}", kind) for index in range(size)]
        if then is not None:
            blocks.append((then, then))
    return tuple(blocks)

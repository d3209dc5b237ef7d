"""The shapes of nuclei, drawn at random in units of the cell's radius and fitted to a share of its area."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from wbc_jax.data.synthetic.geometry import Capsule, Outline
from wbc_jax.data.synthetic.spec import Nucleus, nucleus_fraction

_FIT_STEPS = 2


def _uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(rng.uniform(low, high))


def _lobe(x: float, y: float, angle: float, half_length: float, radius: float, taper: float) -> Capsule:
    """An egg: a short tapered capsule centred at a point."""
    dx, dy = half_length * math.cos(angle), half_length * math.sin(angle)
    return Capsule(x - dx, y - dy, x + dx, y + dy, radius * (1.0 + taper), radius * (1.0 - taper))


def _chain(points: list[tuple[float, float]], radii: list[float]) -> tuple[Capsule, ...]:
    """Capsules from each point to the next."""
    joints = zip(points[:-1], points[1:], radii[:-1], radii[1:], strict=True)
    return tuple(Capsule(x0, y0, x1, y1, r0, r1) for (x0, y0), (x1, y1), r0, r1 in joints)


def _ribbon(
    rng: np.random.Generator, *, length: float, turn: float, radius: float, waviness: float, flips: bool
) -> tuple[Capsule, ...]:
    """A thick line of the given length that turns by `turn` radians in all; `flips` makes it S-shaped."""
    pieces = 7
    heading, x, y = -turn / 2.0, 0.0, 0.0
    points = [(x, y)]
    for piece in range(pieces):
        step = turn / pieces * (-1.0 if flips and piece >= pieces // 2 else 1.0)
        heading += step * _uniform(rng, 0.7, 1.3)
        x += length / pieces * math.cos(heading)
        y += length / pieces * math.sin(heading)
        points.append((x, y))
    middle_x = (min(p[0] for p in points) + max(p[0] for p in points)) / 2.0
    middle_y = (min(p[1] for p in points) + max(p[1] for p in points)) / 2.0
    centred = [(px - middle_x, py - middle_y) for px, py in points]
    radii = [radius * (1.0 + waviness * _uniform(rng, -1.0, 1.0)) for _ in points]
    return _chain(centred, radii)


def _band(rng: np.random.Generator) -> Nucleus:
    flips = rng.random() < 0.2
    # An S reaches further than a C of the same length.
    length = _uniform(rng, 1.0, 1.2) if flips else _uniform(rng, 1.2, 1.5)
    turn = _uniform(rng, 1.2, 2.2) if flips else _uniform(rng, 2.4, 4.4)
    ribbon = _ribbon(rng, length=length, turn=turn, radius=0.19, waviness=0.2, flips=flips)
    return Nucleus(shape="unsegmented-band", lobes=ribbon, blend_um=0.2)


def _indented(rng: np.random.Generator) -> Nucleus:
    if rng.random() < 0.6:
        ribbon = _ribbon(
            rng,
            length=_uniform(rng, 0.75, 1.1),
            turn=_uniform(rng, 2.2, 3.8),
            radius=0.33,
            waviness=0.12,
            flips=False,
        )
        return Nucleus(shape="unsegmented-indented", lobes=ribbon, blend_um=0.3)
    return _notched(rng)


def _notched(rng: np.random.Generator) -> Nucleus:
    disc = _lobe(0.0, 0.0, 0.0, _uniform(rng, 0.04, 0.14), 0.55, _uniform(rng, -0.05, 0.05))
    depth, side = _uniform(rng, 0.12, 0.34), _uniform(rng, -0.15, 0.15)
    notch = Capsule(side, depth, side * 1.8, 1.4, _uniform(rng, 0.07, 0.14), _uniform(rng, 0.25, 0.5))
    return Nucleus(shape="unsegmented-indented", lobes=(disc,), notches=(notch,))


def _round(rng: np.random.Generator) -> Nucleus:
    disc = _lobe(0.0, 0.0, 0.0, _uniform(rng, 0.02, 0.13), 0.55, _uniform(rng, -0.06, 0.06))
    return Nucleus(shape="unsegmented-round", lobes=(disc,))


def _bilobed(rng: np.random.Generator) -> Nucleus:
    gap = _uniform(rng, 0.33, 0.43)
    bend = _uniform(rng, -0.1, 0.18)
    lobes = tuple(
        _lobe(
            side * gap,
            bend,
            math.pi / 2.0 + _uniform(rng, -0.5, 0.5),
            _uniform(rng, 0.08, 0.19),
            _uniform(rng, 0.24, 0.29),
            _uniform(rng, -0.12, 0.12),
        )
        for side in (-1.0, 1.0)
    )
    dip = bend - _uniform(rng, 0.05, 0.2)
    bridge = _chain([(-gap, bend), (0.0, dip), (gap, bend)], [0.08, _uniform(rng, 0.04, 0.07), 0.08])
    return Nucleus(shape="segmented-bilobed", lobes=lobes, filaments=bridge)


def _multilobed(rng: np.random.Generator) -> Nucleus:
    count = int(rng.choice(3, p=(0.5, 0.38, 0.12))) + 3
    # Lobes lie on an open ring, far enough apart that only filaments join them.
    step = {3: 1.75, 4: 1.4, 5: 1.15}[count] * _uniform(rng, 0.97, 1.05)
    size = {3: 0.255, 4: 0.215, 5: 0.18}[count]
    lobes, centres = [], []
    for number in range(count):
        angle = (number - (count - 1) / 2.0) * step + _uniform(rng, -0.05, 0.05)
        ring = 0.47 + _uniform(rng, -0.05, 0.05)
        x, y = ring * math.cos(angle), ring * math.sin(angle)
        radius = size * _uniform(rng, 0.88, 1.05)
        lean = angle + _uniform(rng, -0.5, 0.5)
        lobes.append(_lobe(x, y, lean, _uniform(rng, 0.03, 0.12), radius, _uniform(rng, -0.15, 0.15)))
        centres.append((x, y))
    filaments = _chain(centres, [_uniform(rng, 0.035, 0.06) for _ in centres])
    return Nucleus(shape="segmented-multilobed", lobes=tuple(lobes), filaments=filaments)


def _irregular(rng: np.random.Generator) -> Nucleus:
    lobes = []
    for number in range(int(rng.integers(4, 6))):
        angle = 2.4 * number + _uniform(rng, -0.4, 0.4)  # the golden angle spreads the bulges around
        reach = _uniform(rng, 0.15, 0.38)
        lobes.append(
            _lobe(
                reach * math.cos(angle),
                reach * math.sin(angle),
                _uniform(rng, 0.0, math.pi),
                _uniform(rng, 0.05, 0.2),
                _uniform(rng, 0.17, 0.3),
                _uniform(rng, -0.3, 0.3),
            )
        )
    return Nucleus(shape="irregular", lobes=tuple(lobes), blend_um=0.25)


_SHAPES: dict[str, Callable[[np.random.Generator], Nucleus]] = {
    "irregular": _irregular,
    "segmented-bilobed": _bilobed,
    "segmented-multilobed": _multilobed,
    "unsegmented-band": _band,
    "unsegmented-indented": _indented,
    "unsegmented-round": _round,
}


def _placed(nucleus: Nucleus, angle: float, scale: float, shift: tuple[float, float]) -> Nucleus:
    """Turned, then scaled about the origin, then moved."""
    cos, sin = math.cos(angle), math.sin(angle)

    def place(c: Capsule) -> Capsule:
        x0, y0 = cos * c.x0 - sin * c.y0, sin * c.x0 + cos * c.y0
        x1, y1 = cos * c.x1 - sin * c.y1, sin * c.x1 + cos * c.y1
        return Capsule(
            x0 * scale + shift[0],
            y0 * scale + shift[1],
            x1 * scale + shift[0],
            y1 * scale + shift[1],
            c.radius0 * scale,
            c.radius1 * scale,
        )

    return replace(
        nucleus,
        lobes=tuple(map(place, nucleus.lobes)),
        filaments=tuple(map(place, nucleus.filaments)),
        notches=tuple(map(place, nucleus.notches)),
    )


def sample_nucleus(
    rng: np.random.Generator, shape: str, outline: Outline, *, fraction: float, looseness: float
) -> Nucleus:
    """A nucleus of a shape (a value of `nucleus_shape`), turned at random, covering `fraction` of the cell."""
    unit = replace(_SHAPES[shape](rng), looseness=looseness)
    angle = _uniform(rng, 0.0, 2.0 * math.pi)
    # A small nucleus may lie off centre; a large one has no room to.
    room = 0.45 * max(0.0, 1.0 - math.sqrt(fraction) - 0.1) * outline.radius_um
    heading, far = _uniform(rng, 0.0, 2.0 * math.pi), room * math.sqrt(_uniform(rng, 0.0, 1.0))
    shift = (far * math.cos(heading), far * math.sin(heading))
    scale = outline.radius_um
    nucleus = _placed(unit, angle, scale, shift)
    for _ in range(_FIT_STEPS):
        ratio = math.sqrt(fraction / nucleus_fraction(outline, nucleus))
        scale *= min(max(ratio, 0.7), 1.5)
        nucleus = _placed(unit, angle, scale, shift)
    return nucleus

"""Which form each kind of operation is computed in, per backend: the one switch, and the table of measured winners.

All forms of a kind compute the same function. A kind that a backend does not list keeps XLA's native form: nobody
has measured another there yet. That is so for every kind on gpu and tpu.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Literal

import jax

Form = Literal[
    "native",
    "dot",
    "eigen",
    "split",
    "shifted",
    "blocked",
    "parity",
    "merged32",
    "merged64",
    "padded",
    "space_to_depth",
    "stored",
    "pool_first",
    "rows",
    "in_place",
    "recomputed",
    "repeated",
    "onednn",
    "winograd",
]

FORMS: dict[str, tuple[Form, ...]] = {
    "three_by_three": ("native", "winograd"),
    "library": ("native", "onednn"),
    "pointwise": ("native", "dot"),
    "grouped": ("native", "split", "merged32", "merged64"),
    "depthwise": ("native", "shifted", "split", "merged32", "merged64"),
    "dense": ("native", "eigen"),
    "channel_sums": ("native", "blocked"),
    "max_pool": ("native", "parity"),
    "stem": ("native", "padded", "space_to_depth"),
    "large_kernel": ("native", "padded"),
    "narrow": ("native", "rows"),
    "strided": ("native", "parity"),
    "reuse": ("native", "stored"),
    "transition": ("native", "pool_first"),
    "growth": ("native", "in_place"),
    "norm_gradient": ("native", "recomputed"),
    "moments": ("native", "repeated"),
}
"""Kinds of operations that have more than one form, and the forms of each."""

KINDS: tuple[str, ...] = tuple(FORMS)

# `python benchmarks/levers.py` measures each entry.
WINNERS: dict[tuple[str, str], Form] = {
    ("cpu", "three_by_three"): "winograd",
    ("cpu", "library"): "onednn",
    ("cpu", "pointwise"): "dot",
    ("cpu", "grouped"): "split",
    ("cpu", "dense"): "eigen",
    ("cpu", "depthwise"): "shifted",
    ("cpu", "channel_sums"): "blocked",
    ("cpu", "max_pool"): "parity",
    ("cpu", "large_kernel"): "padded",
    ("cpu", "narrow"): "rows",
    ("cpu", "strided"): "parity",
    ("cpu", "reuse"): "stored",
    ("cpu", "transition"): "pool_first",
    ("cpu", "growth"): "in_place",
    ("cpu", "norm_gradient"): "recomputed",
}
"""(backend, kind) -> form. Kinds: `three_by_three` (wide convolutions of stride 1, `winograd`), before `library` (of a
convolution, before all other forms: `onednn`); `pointwise`, `grouped`, `depthwise` convolutions (`layers.convolve`);
`dense` ones, and all that the other forms leave to XLA (`compiler`: an option of the whole program); `channel_sums`
(batch normalisation, gates), `max_pool`, `stem` (a dense convolution of an image's three channels that has a form of
its own), `large_kernel` (a convolution whose kernel exceeds the map), `narrow` (one to few channels, `kernel_rows`),
`strided` (its gradient), `reuse` (`stored` maps), `transition` (`layers.projected_average`), `growth` (of a dense
block, in evaluation), `norm_gradient` (what batch normalisation keeps for its gradient), `moments` (of a dense block:
taken once a layer's channels, or `repeated` by all layers that read them, as torch does; no backend has a reason
to)."""

_overrides: dict[str, Form] = {}


def form_of(kind: str) -> Form:
    """The form of a kind on the default backend; read while a network is traced."""
    return _overrides.get(kind) or WINNERS.get((jax.default_backend(), kind), "native")


@contextlib.contextmanager
def forms(**chosen: Form) -> Iterator[None]:
    """Other forms for all that is traced inside, by kind: how a lever is measured and how a test compares forms."""
    before = dict(_overrides)
    _overrides.update(chosen)
    try:
        yield
    finally:
        _overrides.clear()
        _overrides.update(before)

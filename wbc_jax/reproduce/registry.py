"""Every exhibit of the three papers, by paper and key."""

from __future__ import annotations

import difflib

from wbc_jax.errors import UsageError
from wbc_jax.reproduce import amnet, daffnet, scam
from wbc_jax.reproduce.exhibit import Exhibit

EXHIBITS: dict[str, tuple[Exhibit, ...]] = {
    module.PAPER: module.EXHIBITS for module in (scam, daffnet, amnet)
}


def find_exhibits(paper: str, keys: tuple[str, ...]) -> tuple[Exhibit, ...]:
    """The exhibits of a paper that were asked for, all where none was named, in the paper's order.

    Raises:
        UsageError: an unknown paper or key; the message has the closest one.
    """
    if paper not in EXHIBITS:
        raise _unknown("paper", paper, tuple(EXHIBITS))
    by_key = {exhibit.key: exhibit for exhibit in EXHIBITS[paper]}
    wanted = {key.lower().replace(" ", "").replace("_", "") for key in keys}
    for key in sorted(wanted - set(by_key)):
        raise _unknown("table or figure", key, tuple(by_key))
    return tuple(e for key, e in by_key.items() if not wanted or key in wanted)


def _unknown(what: str, name: str, known: tuple[str, ...]) -> UsageError:
    close = difflib.get_close_matches(name, known, n=1)
    return UsageError(
        f"no {what} {name!r}",
        expected=f"one of {', '.join(known)}",
        where="wbc-jax reproduce",
        remedy=f"did you mean {close[0]}?" if close else "see `wbc-jax reproduce PAPER --list`",
    )

"""Which parameters stay as they are: the tree is split before differentiation, so frozen leaves cost no gradient.

A masked update would still compute every gradient and throw it away (performance.md 9); here `jax.grad` never
sees a frozen leaf. A prefix is a path from the top of the parameter tree, `"resnet"` or `"densenet/conv0"`, and
matches whole path components: `"conv1"` does not match `"conv10"`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flax.traverse_util import flatten_dict, unflatten_dict

Tree = Mapping[str, Any]
Path = tuple[str, ...]


def partition(params: Tree, prefixes: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split a parameter tree into `(trainable, frozen)`, nested dicts that share no leaf; `merge` undoes it.

    Raises:
        ValueError: prefixes that match no parameter, all of them, with those that exist; or none left to train.
    """
    flat = flatten_dict(params)
    _check_prefixes(flat, prefixes)
    frozen = {path: leaf for path, leaf in flat.items() if is_frozen(path, prefixes)}
    trainable = {path: leaf for path, leaf in flat.items() if path not in frozen}
    if not trainable:
        raise ValueError(f"freeze={prefixes!r} leaves no parameter to train; remove at least one prefix")
    return unflatten_dict(trainable), unflatten_dict(frozen)


def merge(trainable: Tree, frozen: Tree) -> dict[str, Any]:
    """The tree that `partition` split."""
    return unflatten_dict({**flatten_dict(trainable), **flatten_dict(frozen)})


def restore_frozen(new: Tree, old: Tree, prefixes: tuple[str, ...]) -> dict[str, Any]:
    """`new` with the leaves under `prefixes` taken from `old`: keeps the statistics of frozen BatchNorms.

    A prefix without leaves here is no error: frozen parameters need not have statistics.
    """
    previous = flatten_dict(old)
    kept = {p: previous[p] if is_frozen(p, prefixes) else leaf for p, leaf in flatten_dict(new).items()}
    return unflatten_dict(kept)


def is_frozen(path: Path, prefixes: tuple[str, ...]) -> bool:
    """True when the path lies under one of the prefixes."""
    return any(path[: len(parts)] == parts for parts in map(_components, prefixes))


def _components(prefix: str) -> Path:
    return tuple(prefix.strip("/").split("/"))


def _check_prefixes(flat: Mapping[Path, Any], prefixes: tuple[str, ...]) -> None:
    known = {"/".join(path[:depth]) for path in flat for depth in range(1, len(path) + 1)}
    unknown = [prefix for prefix in prefixes if prefix.strip("/") not in known]
    if not unknown:
        return
    listed = sorted(
        name for name in known if name.count("/") <= max(p.strip("/").count("/") for p in unknown)
    )
    raise ValueError(
        f"no parameters under {', '.join(map(repr, unknown))}; prefixes that can be frozen: {', '.join(listed)}"
    )

"""Pretrained arrays into freshly initialised variables: match by path, swap the head, list all that differs.

Pure: the caller has read the file. `variables` are Flax's, `{"params": ..., "batch_stats": ...}`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from wbc_jax.errors import WeightsError
from wbc_jax.weights.naming import NameReport, ShapeMismatch
from wbc_jax.weights.starts import HEADS, OPTIONAL, absent_parts, optional_part


@dataclass(frozen=True)
class MergeReport:
    """What a merge did, path by path (`"params/resnet/conv1/kernel"`).

    Attributes:
        copied: leaves that now hold pretrained values.
        reinitialised: head leaves that keep their fresh values, since the file has no head of that shape.
        unused: pretrained leaves without a place here: a head on a bare trunk, stages behind a cut, convolutions
            that attention takes the place of.
        initialised: leaves that keep their fresh values, since they belong to a part that the file's network has
            nothing of, see `starts.OPTIONAL`.
    """

    copied: tuple[str, ...]
    reinitialised: tuple[str, ...]
    unused: tuple[str, ...]
    initialised: tuple[str, ...] = ()

    def summary(self) -> str:
        """One line for a log."""
        line = f"{len(self.copied)} pretrained arrays loaded"
        if self.reinitialised:
            line += f"; new head: {', '.join(self.reinitialised)}"
        if self.initialised:
            parameters = [path for path in self.initialised if path.startswith("params/")]
            added = sorted({found for path in parameters if (found := optional_part(path))})
            counts = Counter(part for _, part in added)
            line += "; initial values stay in " + ", ".join(f"{n} {part}" for part, n in counts.items())
        if self.unused:
            line += f"; {len(self.unused)} not needed here"
        return line

    def __add__(self, other: MergeReport) -> MergeReport:
        """The report on two merges, of different places of one network, as one."""
        names = ("copied", "reinitialised", "unused", "initialised")
        return MergeReport(*(getattr(self, name) + getattr(other, name) for name in names))


def flatten(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Leaves of variables by path, `"params/conv1/kernel"`."""
    return flatten_dict(dict(variables), sep="/")


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The reverse of `flatten`."""
    return unflatten_dict(dict(flat), sep="/")


def merge_pretrained(
    variables: Mapping[str, Any],
    pretrained: Mapping[str, Any],
    *,
    swap_head: bool = True,
    prefix: str = "",
    where: str = "",
) -> tuple[dict[str, Any], MergeReport]:
    """Variables with every leaf under `prefix` replaced by its pretrained value of the same path.

    Every leaf there must be found with its shape; only three differences are allowed. With `swap_head` the
    classifying layer keeps its fresh values where the file has another number of classes or no head. The network
    may lack whole stages that the file has (a trunk cut early), never part of one. And it may have attention of a
    kind (`starts.OPTIONAL`) that the file has nothing of, in place of a convolution or beside it.

    Args:
        variables: from `model.init`; not modified. Values keep their dtype and sharding.
        pretrained: variables of the network that is found at `prefix`.
        swap_head: whether a head of another shape is left at its initial values instead of refused.
        prefix: module path of the branch to fill, `"resnet"` in SCAM; `""`: the whole network.
        where: the file, for the error.

    Raises:
        WeightsError: anything else that does not fit, all of it at once, with both shapes.
    """
    target, source = flatten(variables), flatten(pretrained)
    places = {local: path for path in target if (local := _local(path, prefix)) is not None}
    if not places:
        raise WeightsError(
            f"the network has no branch {prefix!r}",
            expected=f"one of {', '.join(sorted({path.split('/')[1] for path in target}))}",
            where=where,
        )
    merged, copied, reinitialised, initialised = dict(target), [], [], []
    missing, mismatched = [], []
    absent = absent_parts(source)
    for local, path in places.items():
        found, expected = source.get(local), tuple(jnp.shape(target[path]))
        if found is not None and tuple(jnp.shape(found)) == expected:
            merged[path] = _placed(found, target[path])
            copied.append(path)
        elif swap_head and _module(local) in HEADS:
            reinitialised.append(path)
        elif found is None and (added := optional_part(local)) and added[1] in absent:
            initialised.append(path)
        elif found is None:
            missing.append(path)
        else:
            mismatched.append(ShapeMismatch(path, tuple(jnp.shape(found)), expected))
    # Part of a head (its bias, say) fits by chance: a head is swapped as a whole.
    if reinitialised:
        heads = [path for local, path in places.items() if _module(local) in HEADS]
        merged |= {path: target[path] for path in heads}
        copied = [path for path in copied if path not in heads]
        reinitialised = heads
    unused = [local for local in source if local not in places]
    stages = {_stage(local) for local in places}
    replaced = _replaced(places, absent)
    surplus = [local for local in unused if _stage(local) in stages and not local.startswith(replaced)]
    problems = NameReport(tuple(missing), tuple(surplus), tuple(mismatched))
    if not problems.ok:
        raise WeightsError(
            "the weights do not fit the network\n" + "\n".join(problems.lines()),
            expected=f"all {len(places)} arrays of {f'the branch {prefix!r}' if prefix else 'the network'}",
            where=where,
            remedy="use weights of the same architecture, or choose the architecture of the weights",
        )
    return unflatten(merged), MergeReport(
        tuple(copied), tuple(reinitialised), tuple(unused), tuple(initialised)
    )


def branch(variables: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Variables of one branch as a network of its own, `branch(scam_variables, "resnet")`; empty if none."""
    flat = flatten(variables)
    return unflatten(
        {name: leaf for path, leaf in flat.items() if (name := _local(path, prefix)) is not None}
    )


def _replaced(locals_: Iterable[str], absent: frozenset[str]) -> tuple[str, ...]:
    """What the paths of layers begin with that attention takes the place of, `"params/layer1_0/conv2/"`."""
    added = {found for local in locals_ if (found := optional_part(local)) and found[1] in absent}
    return tuple(f"{block}/{layer}/" for block, part in sorted(added) for layer in OPTIONAL[part])


def _local(path: str, prefix: str) -> str | None:
    """Path within the branch, `params/resnet/conv1/kernel` -> `params/conv1/kernel`; None outside of it."""
    if not prefix:
        return path
    collection, _, rest = path.partition("/")
    return f"{collection}/{rest[len(prefix) + 1 :]}" if rest.startswith(f"{prefix}/") else None


def _module(local: str) -> str:
    return local.split("/")[1]


def _stage(local: str) -> str:
    """`layer3` of `params/layer3_5/conv1/kernel`: the unit in which a trunk may be cut."""
    return _module(local).partition("_")[0]


def _placed(value: Any, like: Any) -> Any:
    """`value` with the dtype and, on devices, the sharding of the leaf that it replaces."""
    array = np.asarray(value).astype(like.dtype)
    return jax.device_put(array, like.sharding) if isinstance(like, jax.Array) else array

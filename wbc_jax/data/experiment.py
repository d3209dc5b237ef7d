"""From a data configuration to what an experiment works on: store, task, split, balance.

Everything that can be wrong with the data (missing, damaged, leaking, a class without images) is found here, before
anything is compiled.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from wbc_jax.catalog import CELL_CLASSES, TASKS, Task, class_task, label_map
from wbc_jax.config import DataConfig
from wbc_jax.data.datasets.facts import Framing
from wbc_jax.data.images import Images
from wbc_jax.data.packed import PackedStore, open_store
from wbc_jax.data.prepare import prepare
from wbc_jax.data.registry import DATASETS, cache_root, default_protocol
from wbc_jax.data.samples import SampleColumns
from wbc_jax.data.splits import Split, check_leaks, limit_per_class, make_split
from wbc_jax.errors import DataError

PARTS = ("train", "val", "test")


class Store(Protocol):
    """What samples need of the store that they lie in: a prepared data set, or several as one."""

    @property
    def images(self) -> Images: ...
    @property
    def samples(self) -> SampleColumns: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Samples:
    """Rows of a store with their labels for one task.

    Attributes:
        store: holds the images.
        rows: int64 `(n,)`, rows of the store.
        labels: int32 `(n,)`, task labels.
        attributes: int32 `(n, 11)`, -1 where not annotated.
        attribute_weights: float32 `(n,)`, weight of each sample's attributes in the loss; None: 1 each.
    """

    store: Store
    rows: np.ndarray
    labels: np.ndarray
    attributes: np.ndarray
    attribute_weights: np.ndarray | None = None

    def ids(self) -> list[str]:
        """Names of the images."""
        return [self.store.samples.ids[row] for row in self.rows]


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedSamples(Samples):
    """Samples of one prepared data set."""

    store: PackedStore


@dataclass(frozen=True, kw_only=True, eq=False)
class Experiment:
    """Data of one run.

    Attributes:
        dataset: name of the data set.
        task: output classes.
        store: prepared images.
        split: rows of each part.
        train, val, test: the parts; `train` may lie in a balanced copy of the store, or in several stores.
        sampling_weights: weight of each training sample; None: each once an epoch.
        class_weights: weight of each class in the loss; None: all alike.
        framing: how images were made square, resolved.
        others_digest: digest of what other data sets add to `train`; None: nothing.
    """

    dataset: str
    task: Task
    store: PackedStore
    split: Split
    train: Samples
    val: Samples
    test: Samples
    sampling_weights: tuple[float, ...] | None
    class_weights: tuple[float, ...] | None
    framing: str
    others_digest: str | None = None

    @property
    def digest(self) -> str:
        """Digest of the images and of their split."""
        own = f"{self.store.digest}-{self.split.digest}"
        return own if self.others_digest is None else f"{own}-{self.others_digest}"

    def part(self, name: str) -> Samples:
        """`train`, `val` or `test`."""
        return {"train": self.train, "val": self.val, "test": self.test}[name]

    def summary(self) -> str:
        """One line: data set, images of each part and class."""
        counts = ", ".join(f"{len(self.part(name).rows)} {name}" for name in PARTS)
        per_class = np.bincount(self.train.labels, minlength=self.task.num_classes)
        classes = ", ".join(f"{name} {n}" for name, n in zip(self.task.class_names, per_class, strict=True))
        return f"{self.dataset}: {counts} images ({self.split.protocol}); training classes: {classes}"


def resolve_framing(data: DataConfig) -> Framing:
    """The framing of a config, `auto` replaced by what is recommended for its data set."""
    return DATASETS[data.dataset].framing if data.framing == "auto" else data.framing


def open_prepared(data: DataConfig) -> PackedStore:
    """The prepared store of a data set, prepared now if it is not there yet."""
    directory = prepare(
        data.dataset,
        raw_dir=data.raw_dir,
        cache_dir=data.cache_dir,
        size_px=data.store_size_px,
        framing=resolve_framing(data),
    )
    return open_store(directory)


@dataclass(frozen=True, kw_only=True, eq=False)
class Divided:
    """A prepared data set with its split.

    Attributes:
        data: what was asked for.
        task: output classes.
        store: prepared images.
        labels: int32 `(N,)`, task label of each row of the store, -1 where the task leaves it out.
        split: rows of each part, checked for leaks.
    """

    data: DataConfig
    task: Task
    store: PackedStore
    labels: np.ndarray
    split: Split


def load_divided(data: DataConfig) -> Divided:
    """Prepares, labels, splits and checks.

    Raises:
        DataError: missing or damaged files, a leak between parts, or another split than the pinned one.
    """
    store = open_prepared(data)
    protocol = _protocol(data, store)
    task = _task(data, store, protocol)
    labels = label_map(task, store.samples.cell_classes)[store.samples.cell_class]
    units = store.samples if data.split_by == "group" else store.samples.ungrouped()
    split = make_split(units, labels, protocol, data.split_seed)
    _require_pinned(data, split)
    leaks = check_leaks(split, units)
    if leaks:
        raise DataError(
            f"{len(leaks)} leaks between the parts of the split:\n  " + "\n  ".join(leaks[:10]),
            expected="no image and no group in two parts",
            where=data.dataset,
            remedy="use data.split random_622, which keeps groups together",
        )
    if data.max_images_per_class is not None:
        split = limit_per_class(split, labels, data.max_images_per_class, data.split_seed)
    if data.max_held_out_per_class is not None:
        split = limit_per_class(
            split, labels, data.max_held_out_per_class, data.split_seed, parts=("val", "test")
        )
    return Divided(data=data, task=task, store=store, labels=labels, split=split)


def load_experiment(data: DataConfig) -> Experiment:
    """What `load_divided` does, and balances.

    Raises:
        DataError: see there; or a class without training images.
    """
    divided = load_divided(data)
    store, task, labels, split = divided.store, divided.task, divided.labels, divided.split
    _require_every_class(task, labels[split.train], data)
    parts = {name: _samples(store, getattr(split, name), labels) for name in PARTS}
    sampling, classes = balance_weights(data, parts["train"].labels, task.num_classes)
    return Experiment(
        dataset=data.dataset,
        task=task,
        store=store,
        split=split,
        train=_with_copies(divided, parts["train"]),
        val=parts["val"],
        test=parts["test"],
        sampling_weights=sampling,
        class_weights=classes,
        framing=resolve_framing(data),
    )


def load_external(data: DataConfig, task: Task, split: str = "all") -> tuple[PreparedSamples, dict[str, int]]:
    """Images of any data set, labelled for the task of a trained network.

    Args:
        data: the data set to score on.
        task: the network's output classes.
        split: a part of the data set's own split, or `all`.

    Returns:
        The samples, and how many images of each cell class the task leaves out.
    """
    store = open_prepared(data)
    labels = label_map(task, store.samples.cell_classes)[store.samples.cell_class]
    rows = np.flatnonzero(labels >= 0)
    if split != "all":
        protocol = _protocol(data, store)
        units = store.samples if data.split_by == "group" else store.samples.ungrouped()
        rows = getattr(make_split(units, labels, protocol, data.split_seed), split)
    left_out = Counter(store.samples.cell_classes[c] for c in store.samples.cell_class[labels < 0])
    if not len(rows):
        raise DataError(
            f"{data.dataset} has no image of the classes {', '.join(task.class_names)}",
            expected="at least one class in common",
            where=f"split {split}",
            remedy="choose another data set or split",
        )
    return _samples(store, rows, labels), dict(left_out)


def _protocol(data: DataConfig, store: PackedStore) -> str:
    if data.split != "auto":
        return data.split
    supplied = {str(name) for name in np.unique(store.samples.source_splits)} - {""}
    if data.task == "native":
        return default_protocol(data.dataset, supplied)
    # A supplied split counts only when it covers the classes asked for: WBCAtt's leaves three of PBC's eight out.
    labels = label_map(TASKS[data.task], store.samples.cell_classes)[store.samples.cell_class] >= 0
    classes = set(store.samples.cell_class[labels].tolist())
    covered = set(store.samples.cell_class[labels & (store.samples.source_splits == "train")].tolist())
    return default_protocol(data.dataset, supplied if covered == classes else set())


def _task(data: DataConfig, store: PackedStore, protocol: str) -> Task:
    if data.task != "native":
        return TASKS[data.task]
    usable = store.samples.source_splits != "" if protocol == "given" else np.ones(len(store.samples), bool)
    present = {store.samples.cell_classes[c] for c in np.unique(store.samples.cell_class[usable])}
    known = [name for name in CELL_CLASSES if name in present]
    return class_task(f"{data.dataset}", (*known, *sorted(present - set(known))))


def _samples(store: PackedStore, rows: np.ndarray, labels: np.ndarray) -> PreparedSamples:
    return PreparedSamples(
        store=store, rows=rows, labels=labels[rows], attributes=store.samples.attributes[rows]
    )


def _require_pinned(data: DataConfig, split: Split) -> None:
    if data.split_sha256 is not None and split.digest != data.split_sha256:
        raise DataError(
            f"the split has digest {split.digest}",
            expected=f"{data.split_sha256}, as pinned",
            where="data.split_sha256",
            remedy="restore the data set it was made from, or pin the present digest",
        )


def _require_every_class(task: Task, train_labels: np.ndarray, data: DataConfig) -> None:
    counts = np.bincount(train_labels, minlength=task.num_classes)
    empty = [name for name, count in zip(task.class_names, counts, strict=True) if count == 0]
    if empty:
        raise DataError(
            f"no training images of {', '.join(empty)}",
            expected=f"images of every class of the task {task.name}",
            where=f"{data.dataset}, split {data.split}",
            remedy="choose a task that the data set covers (data.task native), or add images",
        )


def _with_copies(divided: Divided, train: Samples) -> Samples:
    """The training set, and the copies that balance it where they are asked for."""
    data = divided.data
    if data.balance != "offline":
        return train
    from wbc_jax.data.balance import write_balanced_store

    name = f"{divided.store.digest[:12]}-{divided.split.digest[:12]}-{data.split_seed}"
    target = cache_root(data.cache_dir) / "balanced" / name
    store = write_balanced_store(divided.store, train.rows, train.labels, target, data.split_seed)
    labels = label_map(divided.task, store.samples.cell_classes)[store.samples.cell_class]
    return _samples(store, np.arange(len(labels)), labels)


def balance_weights(
    data: DataConfig, labels: np.ndarray, num_classes: int
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Weights against uneven classes as configured: of each sample in drawing, and of each class in the loss."""
    from wbc_jax.data import imbalance

    if data.balance == "sampling":
        return tuple(float(w) for w in imbalance.sampling_weights(labels)), None
    if data.balance == "class_weights":
        return None, tuple(float(w) for w in imbalance.class_weights(labels, num_classes))
    return None, None

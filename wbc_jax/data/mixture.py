"""One training set out of several data sets: true attributes in one, predicted ones in the others."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from wbc_jax.catalog import label_map
from wbc_jax.config import DataConfig
from wbc_jax.data.experiment import Divided, Experiment, Samples, balance_weights, load_divided
from wbc_jax.data.held_out import HeldOut, held_out, leaks
from wbc_jax.data.images import MixedImages
from wbc_jax.data.prepare import locate
from wbc_jax.data.pseudo_labels import PseudoLabels, PseudoSource
from wbc_jax.data.registry import dataset_info
from wbc_jax.data.samples import SampleColumns
from wbc_jax.errors import DataError


@dataclass(frozen=True, kw_only=True, eq=False)
class MixedStore:
    """Several stores as one. Row numbers go on from one store to the next; an id is `data set: id`.

    Attributes:
        images: of all stores.
        samples: columns of all stores.
    """

    images: MixedImages
    samples: SampleColumns


def require_present(sources: Sequence[DataConfig], others: Sequence[str]) -> None:
    """Every data set of a mix must have its files here.

    Args:
        sources: the data sets.
        others: those that can be left out.

    Raises:
        DataError: naming all that are absent, where to get them, and how to do without.
    """
    absent: dict[str, str] = {}
    for data in sources:
        try:
            locate(data.dataset, raw_dir=data.raw_dir, cache_dir=data.cache_dir)
        except DataError as error:
            absent[data.dataset] = error.where
    if not absent:
        return
    lines = [
        f"{name} ({dataset_info(name).title}), from {dataset_info(name).source}\n    {where}".rstrip()
        for name, where in absent.items()
    ]
    left = [name for name in others if name not in absent]
    leave_out = f"or leave out what is absent: --morphology.other-datasets {' '.join(left)}".rstrip()
    raise DataError(
        f"{len(absent)} of the {len(sources)} data sets are not here:\n  " + "\n  ".join(lines),
        expected="the original files, as `wbc-jax data info NAME` says",
        remedy="unpack them below WBC_DATA_DIR or --morphology.other-raw-dir"
        + (f", {leave_out}" if set(absent) & set(others) else ""),
    )


def hold_out(divided: Sequence[Divided]) -> HeldOut:
    """The validation and test images of all data sets of a mix."""
    return held_out((one.data.dataset, one.store.samples, one.split) for one in divided)


def require_clean(held: HeldOut, learned: Sequence[tuple[str, SampleColumns, np.ndarray]]) -> None:
    """Nothing that is learned from may be held out anywhere.

    Args:
        held: validation and test images.
        learned: data set, columns and rows of what is learned from.

    Raises:
        DataError: naming the images.
    """
    found: list[str] = []
    for dataset, samples, rows in learned:
        found += leaks(held, dataset, [samples.ids[row] for row in rows], samples.sha256[rows])
    if found:
        raise leak_error(found)


def leak_error(found: Sequence[str]) -> DataError:
    """The error about images that are learned from and held out."""
    shown = [*found[:10], *([f"and {len(found) - 10} more"] if len(found) > 10 else [])]
    return DataError(
        f"{len(found)} images to be learned from are held out for validation or test:\n  "
        + "\n  ".join(shown),
        expected="training images only, in every data set of the mix",
        remedy="leave one of the data sets out of the mix, or remove the copies from it",
    )


def with_pseudo_labels(
    experiment: Experiment,
    own: DataConfig,
    labels: PseudoLabels,
    *,
    raw_dir_of: Callable[[str], str | None],
    pseudo_weight: float,
) -> Experiment:
    """The experiment with the images of other data sets in its training set.

    Validation and test sets stay its own. Classes are true everywhere.

    Args:
        experiment: the annotated data set.
        own: its data configuration.
        labels: predicted attributes of the others' training images.
        raw_dir_of: data set -> folder that holds its original files; None: $WBC_DATA_DIR.
        pseudo_weight: weight of a predicted attribute in the loss.

    Raises:
        DataError: a data set has changed since the prediction, or an image is held out or unknown.
    """
    members = [_load_member(own, source, raw_dir_of(source.dataset)) for source in labels.sources]
    chosen = [_rows(member, labels, experiment) for member in members]
    base = Divided(
        data=own, task=experiment.task, store=experiment.store, labels=np.zeros(0), split=experiment.split
    )
    learned = [(own.dataset, experiment.store.samples, experiment.split.train)]
    learned += [(m.data.dataset, m.store.samples, rows) for m, (rows, _) in zip(members, chosen, strict=True)]
    require_clean(hold_out([base, *members]), learned)

    stores = [experiment.store, *(member.store for member in members)]
    images = MixedImages([store.images for store in stores])
    columns = joined([(store.dataset, store.samples) for store in stores])
    labels_of = [experiment.train.labels]
    attributes, rows_of = [experiment.train.attributes], [experiment.train.rows]
    for start, member, (rows, lines) in zip(images.starts[1:], members, chosen, strict=False):
        task_labels = label_map(experiment.task, member.store.samples.cell_classes)
        labels_of.append(task_labels[member.store.samples.cell_class[rows]])
        attributes.append(labels.values[lines])
        rows_of.append(rows + start)
    weights = np.ones(sum(map(len, rows_of)), np.float32)
    weights[len(rows_of[0]) :] = pseudo_weight
    train = Samples(
        store=MixedStore(images=images, samples=columns),
        rows=np.concatenate(rows_of),
        labels=np.concatenate(labels_of),
        attributes=np.concatenate(attributes),
        attribute_weights=None if pseudo_weight == 1.0 else weights,
    )
    sampling, classes = balance_weights(own, train.labels, experiment.task.num_classes)
    return replace(
        experiment,
        train=train,
        sampling_weights=sampling,
        class_weights=classes,
        others_digest=_digest(labels, members),
    )


def joined(parts: Sequence[tuple[str, SampleColumns]]) -> SampleColumns:
    """Columns of several data sets one after the other; ids and groups with their data set's name before them."""
    classes = tuple(dict.fromkeys(name for _, columns in parts for name in columns.cell_classes))
    return SampleColumns(
        ids=[f"{dataset}: {name}" for dataset, columns in parts for name in columns.ids],
        cell_classes=classes,
        cell_class=np.concatenate(
            [
                np.array([classes.index(name) for name in columns.cell_classes], np.int32)[columns.cell_class]
                for _, columns in parts
            ]
        ),
        attributes=np.concatenate([columns.attributes for _, columns in parts]),
        groups=np.array([f"{d}: {g}" if g else "" for d, columns in parts for g in columns.groups], np.str_),
        source_splits=np.concatenate([columns.source_splits for _, columns in parts]),
        sha256=np.concatenate([columns.sha256 for _, columns in parts]),
        store_digest=hashlib.sha256(" ".join(c.store_digest for _, c in parts).encode()).hexdigest(),
    )


def _load_member(own: DataConfig, source: PseudoSource, raw_dir: str | None) -> Divided:
    data = replace(
        own,
        dataset=source.dataset,
        raw_dir=raw_dir,
        task=source.task,  # pyright: ignore[reportArgumentType]
        split=source.split,  # pyright: ignore[reportArgumentType]
        split_seed=source.split_seed,
        split_sha256=None,
        framing=source.framing,  # pyright: ignore[reportArgumentType]
        balance="none",
        max_images_per_class=source.max_images_per_class,
    )
    divided = load_divided(data)
    found = (divided.store.digest, divided.split.digest)
    if found != (source.store_digest, source.split_digest):
        raise DataError(
            f"{source.dataset} has changed since its attributes were predicted",
            expected=f"images {source.store_digest[:16]} divided as {source.split_digest[:16]}, "
            f"found {found[0][:16]} and {found[1][:16]}",
            where=str(divided.store.directory),
            remedy="restore its images, or predict again: `wbc-jax train` on the run directory does",
        )
    return divided


def _rows(member: Divided, labels: PseudoLabels, experiment: Experiment) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a member's store and lines of the file; DataError for an image that may not be learned from."""
    row_of = {name: row for row, name in enumerate(member.store.samples.ids)}
    training = set(member.split.train_ids)
    lines = [i for i, dataset in enumerate(labels.datasets) if dataset == member.data.dataset]
    problems = []
    for i in lines:
        name, row = labels.ids[i], row_of.get(labels.ids[i])
        if row is None or str(member.store.samples.sha256[row]) != labels.sha256[i]:
            problems.append(f"{member.data.dataset}: {name} is not in the data set, or another image now")
        elif name not in training:
            problems.append(f"{member.data.dataset}: {name} is not in the training part")
    if problems:
        raise leak_error(problems)
    rows = np.array([row_of[labels.ids[i]] for i in lines], np.int64)
    outside = label_map(experiment.task, member.store.samples.cell_classes)[
        member.store.samples.cell_class[rows]
    ]
    if (outside < 0).any():
        raise DataError(
            f"{int((outside < 0).sum())} images of {member.data.dataset} are of no class of {experiment.task.name}",
            expected="pseudo-labels that were made for this task",
            remedy="predict again: `wbc-jax train` on the run directory does",
        )
    return rows, np.array(lines, np.int64)


def _digest(labels: PseudoLabels, members: Sequence[Divided]) -> str:
    sha = hashlib.sha256()
    for member in members:
        sha.update(f"{member.store.digest} {member.split.digest}\n".encode())
    sha.update(
        "\n".join(f"{d} {i}" for d, i in zip(labels.datasets, labels.ids, strict=True)).encode(
            "utf-8", "surrogateescape"
        )
    )
    sha.update(labels.values.tobytes())
    return sha.hexdigest()

"""Pseudo-labels: the file, the training set that they make of several data sets, and leaks that are refused."""

from __future__ import annotations

import dataclasses
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from small_smears import shrink

from wbc_jax.catalog import ABSENT, ATTRIBUTES
from wbc_jax.commands.pseudo import Labelled, pseudo_labels
from wbc_jax.config import DataConfig
from wbc_jax.data.experiment import Divided, Experiment, load_divided, load_experiment
from wbc_jax.data.held_out import leaks, not_held_out
from wbc_jax.data.images import MixedImages
from wbc_jax.data.mixture import hold_out, require_clean, require_present, with_pseudo_labels
from wbc_jax.data.pseudo_labels import (
    CSV_NAME,
    PseudoLabels,
    file_digest,
    read_pseudo_labels,
    write_pseudo_labels,
)
from wbc_jax.errors import DataError

OWN = DataConfig(dataset="synthetic_smear", image_size_px=16, store_size_px=16)
OTHER = dataclasses.replace(OWN, dataset="synthetic_smear_plain")
THRESHOLD = 0.5


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Both data sets drawn once; their stores are found by digest, so the small counts hold here alone."""
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def own(cache: str, monkeypatch: pytest.MonkeyPatch) -> Experiment:
    shrink(monkeypatch.setattr, monkeypatch.setitem)
    return load_experiment(dataclasses.replace(OWN, cache_dir=cache))


@pytest.fixture
def other(own: Experiment, cache: str) -> Divided:
    return load_divided(dataclasses.replace(OTHER, cache_dir=cache))


@pytest.fixture
def labels(other: Divided) -> PseudoLabels:
    """Random predictions for the training images of the second data set."""
    random = np.random.default_rng(0)
    groups = [random.dirichlet(np.ones(len(a.values)), len(other.split.train)) for a in ATTRIBUTES]
    part = Labelled(
        divided=other,
        rows=other.split.train,
        probabilities=np.concatenate(groups, axis=1).astype(np.float32),
        left_out=0,
    )
    return pseudo_labels([part], THRESHOLD, "f" * 64)


def mix(own: Experiment, cache: str, labels: PseudoLabels, weight: float = 1.0) -> Experiment:
    data = dataclasses.replace(OWN, cache_dir=cache)
    return with_pseudo_labels(own, data, labels, raw_dir_of=lambda _: None, pseudo_weight=weight)


def test_below_the_threshold_a_value_is_absent(labels: PseudoLabels) -> None:
    assert 0 < (labels.values == ABSENT).mean() < 1
    np.testing.assert_array_equal(labels.values == ABSENT, labels.probabilities < THRESHOLD)


def test_file_keeps_everything(labels: PseudoLabels, tmp_path: Path) -> None:
    path = tmp_path / CSV_NAME
    digest = write_pseudo_labels(path, labels)
    assert file_digest(path) == digest
    found = read_pseudo_labels(path)
    for name in ("datasets", "ids", "sha256", "threshold", "model_sha256", "sources"):
        assert getattr(found, name) == getattr(labels, name)
    np.testing.assert_array_equal(found.values, labels.values)
    np.testing.assert_allclose(found.probabilities, labels.probabilities, atol=1e-6)
    row = path.read_text().splitlines()[1].split(",")
    assert row[:2] == ["synthetic_smear_plain", labels.ids[0]]
    assert row[3] in ("", *ATTRIBUTES[0].values)


def test_changed_and_foreign_files_are_refused(labels: PseudoLabels, tmp_path: Path) -> None:
    path = tmp_path / CSV_NAME
    write_pseudo_labels(path, labels)
    text = path.read_text()
    path.write_text(text.replace("big", "small", 1))
    with pytest.raises(DataError, match="has digest"):
        read_pseudo_labels(path)
    path.write_text(text)
    facts = json.loads(path.with_suffix(".json").read_text())
    for change in (
        {"version": 9},
        {"attributes": facts["attributes"][::-1]},
        {"sources": [{"dataset": "x"}]},
    ):
        path.with_suffix(".json").write_text(json.dumps(facts | change))
        with pytest.raises(DataError):
            read_pseudo_labels(path)
    path.with_suffix(".json").unlink()
    with pytest.raises(DataError, match="does not exist"):
        read_pseudo_labels(path)


def test_mixed_set_has_true_labels_here_and_predicted_ones_there(
    own: Experiment, other: Divided, cache: str, labels: PseudoLabels
) -> None:
    mixed = mix(own, cache, labels, weight=0.5)
    n = len(own.train.rows)
    train = mixed.train
    assert len(train.rows) == n + len(other.split.train)
    np.testing.assert_array_equal(train.attributes[:n], own.train.attributes)
    np.testing.assert_array_equal(train.attributes[n:], labels.values)
    np.testing.assert_array_equal(train.labels[n:], other.labels[other.split.train])
    assert train.attribute_weights is not None
    assert train.attribute_weights.tolist() == [1.0] * n + [0.5] * len(other.split.train)
    expected = np.concatenate([own.store.images[own.train.rows], other.store.images[other.split.train]])
    np.testing.assert_array_equal(train.store.images[train.rows], expected)
    assert train.ids()[n].startswith("synthetic_smear_plain: ")
    np.testing.assert_array_equal(mixed.val.rows, own.val.rows)
    assert mixed.digest != own.digest
    assert mix(own, cache, labels).train.attribute_weights is None


def test_mixed_images_are_those_of_one_array_also_in_another_process(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    parts = []
    for number, count in enumerate((3, 5, 2)):
        path = tmp_path / str(number)
        path.write_bytes(random.integers(0, 256, (count, 2, 2, 3), np.uint8).tobytes())
        parts.append(np.memmap(path, np.uint8, mode="r", shape=(count, 2, 2, 3)))
    mixed, whole = MixedImages(parts), np.concatenate(parts)
    rows = random.permutation(10)
    np.testing.assert_array_equal(mixed[rows], whole[rows])
    assert mixed.shape == whole.shape
    sent = pickle.dumps(mixed)
    assert len(sent) < 1000, "by file name, not by content"
    np.testing.assert_array_equal(pickle.loads(sent)[rows], whole[rows])
    with pytest.raises(IndexError):
        mixed[np.array([10])]


@pytest.mark.parametrize("part", ["val", "test"])
def test_forged_leak_is_refused(
    own: Experiment, other: Divided, cache: str, labels: PseudoLabels, part: str
) -> None:
    """A row of the file that names an image held out in its own data set."""
    row = int(getattr(other.split, part)[0])
    ids, sha256 = list(labels.ids), list(labels.sha256)
    ids[3], sha256[3] = other.store.samples.ids[row], str(other.store.samples.sha256[row])
    forged = dataclasses.replace(labels, ids=ids, sha256=sha256)
    with pytest.raises(DataError, match=f"{ids[3]} is not in the training part"):
        mix(own, cache, forged)


def test_content_held_out_in_another_data_set_is_found(own: Experiment, other: Divided) -> None:
    """The same file under another name in another laboratory's training set."""
    test_row = int(own.split.test[0])
    columns = other.store.samples
    sha256 = columns.sha256.copy()
    sha256[other.split.train[5]] = own.store.samples.sha256[test_row]
    copied = dataclasses.replace(columns, sha256=sha256)
    base = Divided(data=OWN, task=own.task, store=own.store, labels=np.zeros(0), split=own.split)
    held = hold_out([base, other])
    assert (
        leaks(held, "synthetic_smear_plain", other.split.train_ids, columns.sha256[other.split.train]) == []
    )
    with pytest.raises(DataError, match=r"has the content of .* in test of synthetic_smear"):
        require_clean(held, [("synthetic_smear_plain", copied, other.split.train)])
    kept, dropped = not_held_out(held, copied, other.split.train)
    assert len(kept) == len(other.split.train) - 1
    assert [name for name, _ in dropped] == [columns.ids[other.split.train[5]]]
    require_clean(held, [("synthetic_smear_plain", copied, kept)])


def test_images_that_changed_since_the_prediction_are_refused(
    own: Experiment, cache: str, labels: PseudoLabels
) -> None:
    source = dataclasses.replace(labels.sources[0], store_digest="0" * 64)
    with pytest.raises(DataError, match="has changed since"):
        mix(own, cache, dataclasses.replace(labels, sources=(source,)))
    sha256 = ["0" * 64, *labels.sha256[1:]]
    with pytest.raises(DataError, match="another image now"):
        mix(own, cache, dataclasses.replace(labels, sha256=sha256))


def test_absent_data_sets_are_all_named_with_their_source_and_a_way_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WBC_DATA_DIR", str(tmp_path))
    names = ("synthetic_smear_plain", "raabin", "ldwbc")
    sources = [dataclasses.replace(OWN, dataset=name, cache_dir=str(tmp_path)) for name in names]
    with pytest.raises(DataError) as caught:
        require_present(sources, names)
    text = str(caught.value)
    for part in (
        "2 of the 3",
        "raabindata.com",
        "s12859-022-04824-6",
        "--morphology.other-datasets synthetic_smear_plain",
    ):
        assert part in text

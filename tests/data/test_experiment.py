"""From a data configuration to samples: task, split, balance, another laboratory, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wbc_jax.catalog import TASKS
from wbc_jax.config import DataConfig
from wbc_jax.data.experiment import PARTS, load_experiment, load_external
from wbc_jax.errors import DataError

COUNTS = {"neut": 20, "Monocytes": 10, "artefact": 8}


@pytest.fixture
def folder(tmp_path: Path, cache_dir: Path) -> Path:
    rng = np.random.default_rng(0)
    for name, count in COUNTS.items():
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 255, (20, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{i}.png")
    return tmp_path / "images"


def _config(folder: Path, **fields) -> DataConfig:
    small = {"dataset": "image_folder", "raw_dir": str(folder), "image_size_px": 16, "store_size_px": 16}
    return DataConfig(**{**small, **fields})


def test_own_folder_keeps_its_classes_in_the_common_vocabulary_where_they_are_known(folder: Path) -> None:
    experiment = load_experiment(_config(folder))
    assert experiment.task.class_names == ("monocyte", "neutrophil", "artefact")
    sizes = [len(experiment.part(name).rows) for name in PARTS]
    assert sum(sizes) == 38
    assert sizes[0] > sizes[1] >= 6
    for name in PARTS:
        part = experiment.part(name)
        for sample, label in zip(part.ids(), part.labels, strict=True):
            folder_name = {"monocyte": "Monocytes", "neutrophil": "neut"}.get(
                experiment.task.class_names[label], "artefact"
            )
            assert sample.startswith(folder_name + "/")


def test_parts_do_not_overlap_and_the_digest_pins_the_split(folder: Path) -> None:
    experiment = load_experiment(_config(folder))
    ids = [set(experiment.part(name).ids()) for name in PARTS]
    assert not (ids[0] & ids[1])
    assert not (ids[0] & ids[2])
    assert not (ids[1] & ids[2])
    pinned = experiment.split.digest
    assert load_experiment(_config(folder, split_sha256=pinned)).split.digest == pinned
    with pytest.raises(DataError, match="as pinned"):
        load_experiment(_config(folder, split_sha256="0" * 64))
    assert load_experiment(_config(folder, split_seed=1)).split.digest != pinned


def test_balancing_modes(folder: Path) -> None:
    plain = load_experiment(_config(folder))
    counts = np.bincount(plain.train.labels)
    drawn = load_experiment(_config(folder, balance="sampling"))
    weights = np.asarray(drawn.sampling_weights)
    shares = [weights[drawn.train.labels == k].sum() for k in range(3)]
    np.testing.assert_allclose(shares, shares[0])
    weighted = load_experiment(_config(folder, balance="class_weights"))
    assert weighted.class_weights is not None
    np.testing.assert_allclose(
        np.asarray(weighted.class_weights) * counts, (np.asarray(weighted.class_weights) * counts)[0]
    )
    copied = load_experiment(_config(folder, balance="offline"))
    assert np.bincount(copied.train.labels).tolist() == [counts.max()] * 3
    assert len(copied.test.rows) == len(plain.test.rows)
    assert copied.train.store is not copied.store


def test_fewer_training_images_on_request(folder: Path) -> None:
    experiment = load_experiment(_config(folder, max_images_per_class=3))
    assert np.bincount(experiment.train.labels).tolist() == [3, 3, 3]


def test_fewer_held_out_images_on_request(folder: Path) -> None:
    plain, experiment = (load_experiment(_config(folder, max_held_out_per_class=n)) for n in (None, 1))
    assert len(experiment.train.rows) == len(plain.train.rows)
    for part in ("val", "test"):
        assert np.bincount(experiment.part(part).labels).tolist() == [1, 1, 1]
        assert len(plain.part(part).rows) > 3


def test_task_without_images_of_a_class_is_refused(folder: Path) -> None:
    with pytest.raises(DataError, match="no training images of basophil, eosinophil, lymphocyte"):
        load_experiment(_config(folder, task="wbc5"))


def test_another_laboratory_is_mapped_and_what_is_left_out_is_counted(folder: Path) -> None:
    samples, left_out = load_external(_config(folder), TASKS["wbc5"])
    assert left_out == {"artefact": 8}
    names = [TASKS["wbc5"].class_names[label] for label in samples.labels]
    assert sorted(set(names)) == ["monocyte", "neutrophil"]
    assert len(names) == 30


def test_another_laboratory_without_a_common_class_is_refused(folder: Path) -> None:
    from wbc_jax.catalog import class_task

    with pytest.raises(DataError, match="no image of the classes platelet"):
        load_external(_config(folder), class_task("other", ("platelet",)))


@pytest.mark.real_data
def test_real_cells_follow_the_official_split_of_five_classes_or_a_random_one_of_eight(
    data_dir: Path, cache_dir: Path
) -> None:
    config = DataConfig(dataset="pbc", raw_dir=str(data_dir), image_size_px=16, store_size_px=16)
    experiment = load_experiment(config)
    assert experiment.task.class_names == TASKS["wbc5"].class_names
    eight = load_experiment(dataclasses.replace(config, task="pbc8"))
    assert eight.split.protocol == "random_622"
    assert eight.task.num_classes == 8
    assert load_experiment(dataclasses.replace(config, task="wbc5")).split.digest == experiment.split.digest
    assert experiment.split.protocol == "given"
    assert [len(experiment.part(name).rows) for name in PARTS] == [6115, 1028, 500]
    assert experiment.summary().startswith("pbc: 6115 train")

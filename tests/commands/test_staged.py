"""Training in stages without the training: what is repeated, what is not, and which stage a run stands for.

Stand-ins for training and prediction compile nothing; killed and resumed real runs are in
end_to_end/test_staged_kill.py.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from small_smears import shrink

from wbc_jax.catalog import ATTRIBUTES
from wbc_jax.cli import main
from wbc_jax.commands import pseudo, staged
from wbc_jax.commands.run import build_model, load_run, write_card
from wbc_jax.commands.scoring import SamplePredictions
from wbc_jax.commands.train import RunRequest, train
from wbc_jax.commands.weights import load_weights
from wbc_jax.config import Config
from wbc_jax.configs import get_recipe
from wbc_jax.data.experiment import Experiment, Samples
from wbc_jax.data.pseudo_labels import CSV_NAME, read_pseudo_labels
from wbc_jax.data.splits import split_to_json
from wbc_jax.errors import EXIT_OK, ConfigError, DataError, UsageError, WeightsError
from wbc_jax.runtime.checkpoints import Checkpoints, load_variables
from wbc_jax.runtime.json_files import read_json, write_json
from wbc_jax.runtime.rundir import RunDir, resolve_run_dir
from wbc_jax.weights.digest import variables_digest

Trained = list[str]


def small(**morphology: object) -> Config:
    config = get_recipe("daffnet:tiny")
    return replace(
        config,
        data=replace(config.data, image_size_px=24, store_size_px=24, max_images_per_class=6),
        train=replace(config.train, batch_size=8),
        morphology=replace(config.morphology, **morphology),
    )


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("cache"))


def save_random_weights(
    config: Config, experiment: Experiment, run_dir: RunDir, *, resume: Path | None = None
) -> int:
    """Takes the place of `run_training`: a finished run directory, nothing compiled."""
    model = build_model(config.model, experiment.task.num_classes)
    images = jax.ShapeDtypeStruct((1, 24, 24, 3), np.float32)
    shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), images)
    random = np.random.default_rng(config.train.seed)
    fresh = jax.tree.map(lambda leaf: random.normal(size=leaf.shape).astype(np.float32), dict(shapes))
    variables, _ = load_weights(config.model, fresh)
    with Checkpoints(run_dir.path / "checkpoints") as checkpoints:
        checkpoints.save_best(config.train.epochs, variables, {})
    write_json(run_dir.path / "split.json", split_to_json(experiment.split))
    write_card(run_dir.path, config, experiment.task, 1)
    write_json(run_dir.path / "metrics.json", {"test.accuracy": 0.5, "steps": len(experiment.train.rows)})
    run_dir.set_state("finished")
    return EXIT_OK


def predict_at_random(step: object, variables: dict, samples: Samples, batch_size: int) -> SamplePredictions:
    """Takes the place of `predict_samples`: depends on the weights and the images' number."""
    random = np.random.default_rng(int(variables_digest(variables)[:8], 16))
    groups = [random.dirichlet(np.ones(len(a.values)), len(samples.rows)) for a in ATTRIBUTES]
    return SamplePredictions(
        probabilities=np.ones((len(samples.rows), 5), np.float32),
        attribute_probabilities=np.concatenate(groups, axis=1).astype(np.float32),
        loss=0.0,
        attribute_accuracy=None,
    )


def stand_in(monkeypatch: pytest.MonkeyPatch, cache: str) -> Trained:
    """Small data sets and nothing to compute; returns the list that gets the names of trained stages."""
    names: Trained = []

    def training(config: Config, experiment: Experiment, run_dir: RunDir, **kwargs: Path) -> int:
        names.append(run_dir.path.name)
        return save_random_weights(config, experiment, run_dir, **kwargs)

    shrink(monkeypatch.setattr, monkeypatch.setitem)
    monkeypatch.setattr(staged, "run_training", training)
    monkeypatch.setattr(pseudo, "predict_samples", predict_at_random)
    monkeypatch.setenv("WBC_CACHE_DIR", cache)
    return names


@pytest.fixture
def trained(cache: str, monkeypatch: pytest.MonkeyPatch) -> Trained:
    """Names of the stages that were trained, as they are."""
    return stand_in(monkeypatch, cache)


def run(path: Path, config: Config) -> int:
    return train(RunRequest(config=config, recipe="daffnet:tiny", run_dir=path))


ALL = ["1_map", "3_map_mixed", "4_fusion"]


@pytest.fixture(scope="module")
def first_run(tmp_path_factory: pytest.TempPathFactory, cache: str) -> Path:
    path = tmp_path_factory.mktemp("first") / "run"
    with pytest.MonkeyPatch.context() as patch:
        trained = stand_in(patch, cache)
        assert run(path, small()) == EXIT_OK
    assert trained == ALL
    return path


@pytest.fixture
def finished(first_run: Path, trained: Trained, tmp_path: Path) -> Path:
    """A finished run to change."""
    return Path(shutil.copytree(first_run, tmp_path / "run"))


def test_stages_leave_directories_that_hand_on(finished: Path) -> None:
    labels = read_pseudo_labels(finished / "stages" / "2_pseudo" / CSV_NAME)
    first = load_variables(finished / "stages" / "1_map" / "checkpoints")
    assert labels.model_sha256 == variables_digest(first)
    assert set(labels.datasets) == {"synthetic_smear_plain"}
    assert len(labels.ids) == 29, "30, of which one class has more than six"
    metrics = read_json(finished / "metrics.json")
    assert metrics["test.accuracy"] == 0.5
    assert metrics["stages"]["map"]["steps"] == 30
    assert metrics["stages"]["map_mixed"]["steps"] == 30 + 29, "both data sets"
    assert list(metrics["stages"]) == ["map", "pseudo", "map_mixed", "fusion"]
    mixed = load_variables(finished / "stages" / "3_map_mixed" / "checkpoints")
    fusion = load_variables(finished / "stages" / "4_fusion" / "checkpoints")
    np.testing.assert_array_equal(
        mixed["params"]["attribute_heads"]["kernel"], fusion["params"]["map"]["attribute_heads"]["kernel"]
    )
    for stage in (*ALL, "2_pseudo"):
        for name in ("config.json", "provenance.json", "stage.json", "status.json"):
            assert (finished / "stages" / stage / name).is_file(), (stage, name)


def test_nothing_is_done_twice(finished: Path, trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    before = (finished / "stages" / "2_pseudo" / CSV_NAME).stat().st_mtime_ns
    capsys.readouterr()
    assert main(["train", "--run-dir", str(finished)]) == EXIT_OK
    output = capsys.readouterr().out
    assert output.count("complete and unchanged, not repeated") == 4
    assert "nothing to do" in output
    assert trained == []
    assert (finished / "stages" / "2_pseudo" / CSV_NAME).stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("change", "repeated", "outdated"),
    [
        (
            lambda c: replace(c, train=replace(c.train, epochs=c.train.epochs + 1)),
            ["4_fusion"],
            ["4_fusion-1"],
        ),
        (
            lambda c: replace(c, morphology=replace(c.morphology, pseudo_threshold=0.99)),
            ["3_map_mixed", "4_fusion"],
            ["2_pseudo-1", "3_map_mixed-1"],
        ),
        (lambda c: replace(c, train=replace(c.train, seed=5)), ALL, [f"{name}-1" for name in ALL]),
        (lambda c: replace(c, log=replace(c.log, every_steps=3)), [], []),
    ],
    ids=["fusion only", "threshold", "seed", "log only"],
)
def test_a_change_repeats_what_depends_on_it_and_keeps_the_former(
    finished: Path,
    trained: Trained,
    change: Callable[[Config], Config],
    repeated: list[str],
    outdated: list[str],
) -> None:
    assert run(finished, change(small())) == EXIT_OK
    assert set(trained) <= set(repeated)
    assert trained[:1] == repeated[:1]
    kept = {path.name for path in (finished / "stages" / "outdated").glob("*")}
    assert set(outdated) <= kept


def test_changed_images_repeat_the_stages_that_use_them(
    finished: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wbc_jax.data.registry import builder_class

    counts = {"train": 25, "val": 10, "test": 10}
    monkeypatch.setattr(builder_class("synthetic_smear_plain"), "COUNTS", counts)
    assert run(finished, small()) == EXIT_OK
    assert trained[0] == "3_map_mixed"
    assert len(read_pseudo_labels(finished / "stages" / "2_pseudo" / CSV_NAME).ids) == 25


def test_lost_pseudo_labels_are_predicted_again_and_the_rest_stays(finished: Path, trained: Trained) -> None:
    path = finished / "stages" / "2_pseudo" / CSV_NAME
    content = path.read_bytes()
    path.unlink()
    assert run(finished, small()) == EXIT_OK
    assert path.read_bytes() == content
    assert trained == []


def test_the_run_stands_for_its_last_stage(finished: Path, tmp_path: Path) -> None:
    assert resolve_run_dir(finished) == finished / "stages" / "4_fusion"
    assert load_run(finished).config.model.name == "daffnet_tiny"
    assert load_run(finished / "stages" / "1_map").config.model.name == "map_tiny"
    shutil.rmtree(finished / "stages" / "4_fusion")
    with pytest.raises(UsageError, match="has not reached its last stage"):
        load_run(finished)


def test_a_predictor_may_be_given_as_a_run(finished: Path) -> None:
    row = get_recipe("daffnet:tiny_pbc")
    for source in (finished, finished / "stages" / "3_map_mixed"):
        model = replace(row.model, pretrained_map=str(source))
        network = build_model(model, 5)
        images = jax.ShapeDtypeStruct((1, 24, 24, 3), np.float32)
        shapes = jax.eval_shape(lambda x, n=network: n.init(jax.random.key(0), x, train=False), images)
        zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), dict(shapes))
        filled, lines = load_weights(model, zeros)
        expected = load_variables(finished / "stages" / "3_map_mixed" / "checkpoints")
        jax.tree.map(
            np.testing.assert_array_equal, filled["params"]["map"]["trunk"], expected["params"]["trunk"]
        )
        assert not filled["params"]["semantic"]["conv1"]["kernel"].any()
        assert str(source) in lines[0]


@pytest.mark.parametrize(
    ("given", "error", "part"),
    [
        (None, ConfigError, "frozen with random weights"),
        ("absent.safetensors", WeightsError, "no such file"),
        ("folder", Exception, "no valid checkpoint"),
    ],
)
def test_a_predictor_that_cannot_serve_is_refused_before_the_data_are_read(
    tmp_path: Path, given: str | None, error: type[Exception], part: str
) -> None:
    (tmp_path / "folder").mkdir()
    config = get_recipe("daffnet:tiny_pbc")
    path = None if given is None else str(tmp_path / given)
    config = replace(
        config,
        data=replace(config.data, raw_dir="/nowhere"),
        model=replace(config.model, pretrained_map=path),
    )
    with pytest.raises(error, match=part):
        train(RunRequest(config=config, recipe="r", run_dir=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_several_processes_are_refused(tmp_path: Path) -> None:
    request = RunRequest(config=small(), recipe="r", run_dir=tmp_path / "run")
    with pytest.raises(ConfigError, match="on 2 processes"):
        staged.train_staged(request, 2)


def test_absent_data_sets_are_named_before_anything_is_trained(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WBC_DATA_DIR", str(tmp_path))
    with pytest.raises(DataError, match="Raabin-WBC") as caught:
        run(tmp_path / "run", small(other_datasets=("synthetic_smear_plain", "raabin")))
    assert caught.value.exit_code == 3
    assert "--morphology.other-datasets synthetic_smear_plain" in str(caught.value)
    assert trained == []
    assert not (tmp_path / "run").exists()

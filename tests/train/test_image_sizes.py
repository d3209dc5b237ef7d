"""Progressive image size: which size when, how images are shrunk, one trace a size, exact across a switch."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import linen as nn
from tiny_run import CLASSES, save_pictures
from toy_training import ToyNet, assert_trees_equal

from wbc_jax.commands import parts as parts_module
from wbc_jax.commands.ahead import compile_ahead
from wbc_jax.commands.parts import Parts, build_parts
from wbc_jax.config import Config, DataConfig, EvalConfig, ModelConfig, OptimConfig, TrainConfig
from wbc_jax.config_check import validate
from wbc_jax.data.experiment import Experiment, load_experiment
from wbc_jax.errors import ConfigError
from wbc_jax.runtime.goodput import Goodput
from wbc_jax.train.image_sizes import (
    all_image_sizes,
    image_size_at,
    image_sizes_between,
    shrink,
    shrunk_store_px,
    sized_batches,
)
from wbc_jax.train.parallel import replicate

SCHEDULE = ((1.0, 16), (2.5, 24))


@pytest.mark.parametrize(("step", "expected"), [(0, 16), (3, 16), (4, 24), (9, 24), (10, 32), (999, 32)])
def test_size_follows_from_the_step(step: int, expected: int) -> None:
    assert image_size_at(SCHEDULE, step, steps_per_epoch=4, image_size_px=32) == expected


def test_no_schedule_is_one_size() -> None:
    assert image_size_at((), 5, steps_per_epoch=4, image_size_px=32) == 32
    assert all_image_sizes((), 32) == (32,)
    assert all_image_sizes(SCHEDULE, 32) == (16, 24, 32)


@pytest.mark.parametrize(
    ("start", "stop", "expected"),
    [(0, 40, (16, 24, 32)), (4, 40, (24, 32)), (10, 40, (32,)), (0, 10, (16, 24)), (7, 7, ())],
)
def test_sizes_still_to_come(start: int, stop: int, expected: tuple[int, ...]) -> None:
    found = image_sizes_between(SCHEDULE, start, stop, steps_per_epoch=4, image_size_px=32)
    assert found == expected


def test_a_size_that_no_step_has_does_not_come() -> None:
    assert image_sizes_between(((0.1, 16),), 0, 8, steps_per_epoch=4, image_size_px=32) == (32,)


def test_batches_from_the_middle_have_the_sizes_of_the_whole() -> None:
    def batches(step: int) -> Any:
        return ((index,) for index in itertools.count(step))

    sized = sized_batches(batches, SCHEDULE, steps_per_epoch=4, image_size_px=32)
    whole = list(itertools.islice(sized(0), 12))
    assert [size for size, _ in whole] == [16] * 4 + [24] * 6 + [32] * 2
    assert list(itertools.islice(sized(7), 5)) == whole[7:]


@pytest.mark.parametrize("side", [18, 27, 36])
def test_shrinking_averages_as_torch_does(side: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 36, 36, 3), np.uint8)
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(images).permute(0, 3, 1, 2).float(),
        size=side, mode="bilinear", antialias=True, align_corners=False,
    ).permute(0, 2, 3, 1)  # fmt: skip
    ours = np.asarray(shrink(jnp.asarray(images), side))
    assert ours.dtype == np.uint8
    np.testing.assert_allclose(ours.astype(np.float32), theirs.numpy(), atol=0.5 + 1e-3)


def test_shrunk_crop_shows_the_same_part_of_the_image() -> None:
    assert shrunk_store_px(256, 112, 224) == 128
    assert shrunk_store_px(72, 32, 64) == 36
    assert shrunk_store_px(40, 32, 64) == 32  # a store smaller than the image is enlarged, not cropped


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Twelve images, three steps an epoch; two steps at 16 px, then 32 px; all that is random is on."""
    home = tmp_path_factory.mktemp("sizes")
    for part, count in (("train", 4), ("val", 1), ("test", 1)):
        save_pictures(home / "images" / part, CLASSES, count, seed=len(part))
    return Config(
        data=DataConfig(
            dataset="image_folder",
            raw_dir=str(home / "images"),
            cache_dir=str(home / "cache"),
            image_size_px=32,
            store_size_px=36,
        ),
        optim=OptimConfig(ema_decay=0.9),
        train=TrainConfig(epochs=2, batch_size=4, image_size_schedule=((0.67, 16),)),
        eval=EvalConfig(batch_size=4),
    )


@pytest.fixture(scope="module")
def experiment(config: Config) -> Experiment:
    return load_experiment(config.data)


@pytest.fixture
def toy_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that compiles in a second, with dropout, in place of the configured one."""

    def build(_: ModelConfig, num_classes: int, **fields: Any) -> ToyNet:
        return ToyNet(num_classes=num_classes, dropout_rate=0.3, **fields)

    monkeypatch.setattr(parts_module, "build_model", build)


def _train(parts: Parts, state: Any, start: int, stop: int) -> Any:
    for batch in itertools.islice(parts.batches(start), stop - start):
        state, _ = parts.train_step(state, *batch)
    return state


@pytest.mark.usefixtures("toy_network")
def test_run_goes_on_bit_for_bit_across_a_switch_and_traces_each_size_once(
    config: Config, experiment: Experiment
) -> None:
    parts = build_parts(config, experiment)
    first = jax.device_get(parts.state)

    def train(state: Any, start: int, stop: int) -> Any:
        placed = replicate(jax.tree.map(np.array, state), parts.mesh)
        return jax.device_get(_train(parts, placed, start, stop))

    whole = train(first, 0, 5)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(whole))
    for saved_at in (1, 2):  # a step before the switch, and at it
        assert_trees_equal(train(train(first, 0, saved_at), saved_at, 5), whole)
    assert parts.train_step.traces == 2


@pytest.mark.usefixtures("toy_network")
def test_every_size_to_come_is_compiled_before_the_first_step(config: Config, experiment: Experiment) -> None:
    parts = build_parts(config, experiment)
    batches, seconds = compile_ahead(parts, parts.state, 0, experiment.val, 4)
    assert list(seconds) == ["train_16px", "train_32px", "evaluate"]
    assert all(value > 0 for value in seconds.values())
    timer, state = Goodput(), parts.state
    with timer.measure("step"):
        for batch in itertools.islice(batches(0), 5):
            state, _ = parts.train_step(state, *batch)
    assert timer.seconds()["compile"] == 0
    assert (parts.train_step.traces, parts.eval_step.traces) == (2, 1)


@pytest.mark.usefixtures("toy_network")
def test_a_size_that_is_over_is_not_compiled(config: Config, experiment: Experiment) -> None:
    parts = build_parts(config, experiment)
    _, seconds = compile_ahead(parts, parts.state, 2, experiment.val, 4)
    assert list(seconds) == ["train", "evaluate"]


class FlatNet(nn.Module):
    """Its one matrix has a row a pixel."""

    num_classes: int

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> tuple[jax.Array, dict[str, jax.Array]]:
        return nn.Dense(self.num_classes)(images.reshape(len(images), -1)), {}


def test_network_tied_to_one_size_is_refused_before_compiling(
    config: Config, experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts_module, "build_model", lambda _, count, **fields: FlatNet(count))
    with pytest.raises(ConfigError, match="at 16 px the network has parameters of another shape"):
        build_parts(config, experiment)


@pytest.mark.parametrize(
    ("schedule", "rule"),
    [
        (((2.0, 16),), "epochs must rise"),
        (((0.0, 16),), "epochs must rise"),
        (((1.5, 16), (1.0, 20)), "epochs must rise"),
        (((float("nan"), 16),), "epochs must rise"),
        (((1.0, 32),), "sizes must rise"),
        (((1.0, 8),), "sizes must rise"),
        (((1.0, 20), (1.5, 16)), "sizes must rise"),
    ],
)
def test_schedules_that_make_no_sense_are_named(config: Config, schedule: Any, rule: str) -> None:
    wrong = dataclasses.replace(config, train=dataclasses.replace(config.train, image_size_schedule=schedule))
    (problem,) = validate(wrong)
    assert problem.path == "train.image_size_schedule"
    assert rule in str(problem)


@pytest.mark.usefixtures("toy_network")
def test_laps_of_time_to_accuracy_are_validations_in_order(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wbc_jax.commands.time_to_accuracy import measure_laps

    ahead, kept = [], []

    def compile_and_tell(*arguments: Any) -> Any:
        ahead.append(compile_ahead(*arguments))
        return ahead[-1]

    monkeypatch.setattr("wbc_jax.commands.ahead.compile_ahead", compile_and_tell)
    monkeypatch.setattr(
        "wbc_jax.commands.program_cache.enable_cache", lambda *arguments: kept.append(arguments)
    )
    ticks = itertools.count()
    laps, parts = [], []
    measure_laps(
        config, lambda: float(next(ticks)), lambda lap, images: (laps.append(lap), parts.append(images))
    )
    assert kept == [(True, config.data.cache_dir)]
    assert [list(seconds) for _, seconds in ahead] == [["train_16px", "train_32px", "evaluate"]]
    assert [lap.step for lap in laps] == [3, 6]
    assert parts == [{"train": 12, "val": 3, "test": 3}] * 2
    # A reading is a tick: 0 first step, 1 lap, 2 to 3 scoring of test images, which is taken out, 4 lap.
    assert [lap.from_start_s for lap in laps] == [1.0, 3.0]
    assert [lap.from_first_step_s for lap in laps] == [1.0, 3.0]
    assert all(0 <= score <= 1 for lap in laps for score in (lap.val, lap.test))

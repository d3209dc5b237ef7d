"""A run directory as training leaves it, without training: random weights on a handful of coloured pictures."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from wbc_jax.commands.run import build_model, write_card
from wbc_jax.config import Config, DataConfig, EvalConfig, ModelConfig, OptimConfig
from wbc_jax.config_json import to_json
from wbc_jax.data.experiment import load_experiment
from wbc_jax.data.splits import split_to_json
from wbc_jax.models.summary import count_parameters
from wbc_jax.runtime.checkpoints import Checkpoints
from wbc_jax.runtime.json_files import write_json
from wbc_jax.train.optim import make_optimizer
from wbc_jax.train.state import create_state

CLASSES = ("eosinophil", "lymphocyte", "neutrophil")
SIZE = 20
STORE_SIZE = 24


def save_picture(path: Path, seed: int, side: tuple[int, int] = (30, 26)) -> Path:
    """A blot of a random colour on a random ground."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[: side[1], : side[0]]
    centre = random.uniform(0.3, 0.7, 2) * side[::-1]
    blot = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < random.uniform(4, 9) ** 2
    pixels = np.where(blot[..., None], random.integers(0, 256, 3), random.integers(100, 256, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((pixels + random.integers(-20, 21, pixels.shape)).clip(0, 255).astype(np.uint8)).save(
        path
    )
    return path


def save_pictures(folder: Path, classes: tuple[str, ...], per_class: int, seed: int = 0) -> Path:
    """`folder/<class>/<n>.png`; every seed gives other pictures."""
    for index, name in enumerate(classes):
        for number in range(per_class):
            picture_seed = 10_000 * seed + 100 * index + number
            save_picture(folder / name / f"{name[:3]}_{number}.png", picture_seed)
    return folder


def make_run(home: Path, model: ModelConfig | None = None, **data: object) -> Path:
    """`home/run`, a run on the pictures below `home/images`, of a tiny ResNet unless told otherwise."""
    for part, count in (("train", 4), ("val", 2), ("test", 5)):
        save_pictures(home / "images" / part, CLASSES, count, seed=len(part))
    config = Config(
        data=DataConfig(
            dataset="image_folder",
            raw_dir=str(home / "images"),
            cache_dir=str(home / "cache"),
            image_size_px=SIZE,
            store_size_px=STORE_SIZE,
            **data,  # pyright: ignore[reportArgumentType]
        ),
        model=model or ModelConfig(name="resnet_tiny"),
        eval=EvalConfig(batch_size=4),
    )
    experiment = load_experiment(config.data)
    network = build_model(config.model, len(CLASSES))
    tx = make_optimizer(OptimConfig(), steps_per_epoch=1, epochs=1)
    state = create_state(network, tx, jax.random.key(1), SIZE)
    # Statistics and head as after some training: a file that lost either would show.
    state = state.replace(batch_stats=_shifted(state.batch_stats), params=_sharpened(state.params))
    run = home / "run"
    run.mkdir()
    (run / "config.json").write_text(to_json(config))
    write_json(run / "split.json", split_to_json(experiment.split))
    write_json(run / "provenance.json", {"commit": "abc", "host": "somewhere", "versions": {"jax": "0"}})
    write_card(run, config, experiment.task, count_parameters(state.params))
    with Checkpoints(run / "checkpoints") as checkpoints:
        checkpoints.save_best(7, state, {})
    return run


def _shifted(stats: object) -> object:
    random = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: leaf + jnp.asarray(random.uniform(0, 0.2, leaf.shape), leaf.dtype), stats
    )


def _sharpened(params: dict) -> dict:
    """A larger last layer, so that images differ clearly in their probabilities."""
    head = next(name for name in ("fc", "logits", "classifier") if name in params)
    kernel = params[head]["kernel"] * jnp.float32(6.0)
    return {**params, head: {**params[head], "kernel": kernel}}

"""`wbc-jax probe`: linear heads on the features of a network that stays as it is, a whole sweep in seconds.

The features are computed once. The best head is written with the network's weights as a start for training the whole
network (LP-FT).
"""

from __future__ import annotations

import csv
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from wbc_jax.commands.predictor_cache import compute_views
from wbc_jax.commands.program_cache import enable_cache
from wbc_jax.commands.run import build_model, load_run
from wbc_jax.commands.weights import load_weights, weight_sources
from wbc_jax.config import Config
from wbc_jax.config_json import digest
from wbc_jax.data.experiment import Experiment, Samples, load_experiment
from wbc_jax.errors import EXIT_OK, ConfigError, UsageError
from wbc_jax.models.initialisers import init_variables
from wbc_jax.runtime.devices import activation_dtype
from wbc_jax.runtime.json_files import write_json
from wbc_jax.train.known_attributes import make_view_step
from wbc_jax.train.probe import Features, Head, Scores, score_heads, train_heads
from wbc_jax.weights.load import save_variables
from wbc_jax.weights.starts import HEADS

TABLE_FILE, SUMMARY_FILE, START_FILE = "probe.csv", "probe.json", "start.safetensors"


@dataclass(frozen=True, kw_only=True)
class ProbeOptions:
    """The sweep: every learning rate with every weight decay and seed."""

    learning_rates: tuple[float, ...] = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
    """Peak learning rates of Adam."""
    weight_decays: tuple[float, ...] = (0.0, 1e-2, 1e-1)
    """Decoupled weight decays per step, relative to the learning rate."""
    seeds: int = 3
    """Seeds 0, 1, …: order of the images, view of each, initial head."""
    epochs: int = 100
    """Passes over the training images."""
    batch_size: int = 256
    """Images per step."""
    mirrors: bool = True
    """Learn from the four mirror images of each training image; otherwise from the image alone."""
    select: Literal["accuracy", "balanced_accuracy", "loss"] = "balanced_accuracy"
    """Validation score that picks the best head."""
    out: Path | None = None
    """Folder for table, summary and start weights; None: RUN_DIR/probe, without a run runs/probe."""

    def check(self) -> None:
        """UsageError with every number out of range."""
        rules = {
            "learning_rates": bool(self.learning_rates) and min(self.learning_rates) > 0,
            "weight_decays": bool(self.weight_decays) and min(self.weight_decays) >= 0,
            "seeds": self.seeds >= 1,
            "epochs": self.epochs >= 1,
            "batch_size": self.batch_size >= 1,
        }
        problems = [f"--{n.replace('_', '-')} {getattr(self, n)}" for n, holds in rules.items() if not holds]
        if problems:
            raise UsageError(
                "out of range: " + ", ".join(problems),
                expected="learning rates above 0, weight decays from 0, all else at least 1",
                where="wbc-jax probe",
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class Sweep:
    """Heads and their validation scores, leading axes (seeds, points); points are pairs (learning rate, decay)."""

    points: tuple[tuple[float, float], ...]
    heads: Head
    train: Scores
    val: Scores
    seconds: float

    def best(self, select: str) -> tuple[int, int]:
        """(seed, point) of the best validation score; of equals the one with the lowest validation loss."""
        loss = np.asarray(self.val.loss)
        score = -loss if select == "loss" else np.asarray(getattr(self.val, select))
        ranked = np.lexsort((loss.ravel(), -score.ravel()))
        seed, point = np.unravel_index(ranked[0], loss.shape)
        return int(seed), int(point)


def probe(config: Config, run_dir: Path | None, options: ProbeOptions) -> int:
    """Sweeps, prints the best, writes table, summary and start weights.

    Args:
        config: data, network and weights; where `run_dir` is given its weights are taken.
        run_dir: a trained run, or None.
        options: the sweep.

    Raises:
        ConfigError: neither a run nor weights: features of a random network are none.
        DataError, WeightsError: data or weights that are missing, damaged, or do not fit.
    """
    options.check()
    if run_dir is not None:
        load_run(run_dir)
        config = replace(config, model=_started_from(config, run_dir))
    if not weight_sources(config.model):
        raise ConfigError(
            "the network has random weights",
            expected="a run directory, or weights",
            where="model.pretrained",
            remedy="wbc-jax probe RUN_DIR, or --model.pretrained resnet50.safetensors",
        )
    enable_cache(config.runtime.compile_cache, config.data.cache_dir)
    out = options.out or (Path("runs") if run_dir is None else run_dir) / "probe"
    experiment = load_experiment(config.data)
    print(experiment.summary())
    model, variables = _network(config, experiment)
    started = time.perf_counter()
    features = _features(config, experiment, model, variables, options.mirrors)
    seconds = time.perf_counter() - started
    head_name = _head_name(variables, features["train"].values.shape[-1])
    sweep = run_sweep(features["train"], features["val"], options, experiment)
    seed, point = sweep.best(options.select)
    best = jax.tree.map(lambda leaf: leaf[seed, point], sweep.heads)
    test = score_heads(best, features["test"])
    summary = {
        "model": config.model.name,
        "dataset": config.data.dataset,
        "data_digest": experiment.digest,
        "config_digest": digest(config),
        "images": {name: len(part.labels) for name, part in features.items()},
        "features": int(features["train"].values.shape[-1]),
        "views": int(features["train"].values.shape[1]),
        "heads": int(np.size(sweep.val.loss)),
        "features_s": seconds,
        "sweep_s": sweep.seconds,
        "sweep_s_per_epoch": sweep.seconds / options.epochs,
        "best": _row(sweep, seed, point),
        "test": {name: float(value) for name, value in test._asdict().items()},
    }
    out.mkdir(parents=True, exist_ok=True)
    _write_table(out / TABLE_FILE, sweep)
    write_json(out / SUMMARY_FILE, summary)
    save_variables(
        out / START_FILE,
        _with_head(variables, head_name, best),
        {"model": config.model.name, "made_by": "probe"},
    )
    _tell(summary, out)
    return EXIT_OK


def run_sweep(train: Features, val: Features, options: ProbeOptions, experiment: Experiment) -> Sweep:
    """Trains and scores every head; the seconds include compiling."""
    points = tuple((rate, decay) for rate in options.learning_rates for decay in options.weight_decays)
    rates, decays = (jnp.asarray(column, jnp.float32) for column in zip(*points, strict=True))
    started = time.perf_counter()
    fit = jax.jit(train_heads, static_argnames=("num_classes", "epochs", "batch_size", "class_weights"))
    heads = fit(
        train,
        rates,
        decays,
        jnp.arange(options.seeds, dtype=jnp.int32),
        num_classes=experiment.task.num_classes,
        epochs=options.epochs,
        batch_size=options.batch_size,
        class_weights=experiment.class_weights,
    )
    jax.block_until_ready(heads)
    seconds = time.perf_counter() - started
    return Sweep(
        points=points,
        heads=heads,
        train=score_heads(heads, train),
        val=score_heads(heads, val),
        seconds=seconds,
    )


def _started_from(config: Config, run_dir: Path) -> Any:
    """The network's fields with the run's weights in place of all others."""
    others = {f"pretrained_{branch}": None for branch in ("resnet", "densenet", "semantic", "map")}
    return replace(config.model, pretrained=str(run_dir), **others)


def _network(config: Config, experiment: Experiment) -> tuple[Any, dict[str, Any]]:
    """The network of the config with its weights in place; its head fits the task and is random."""
    dtype = activation_dtype(config.train.precision)
    model = build_model(config.model, experiment.task.num_classes, dtype=dtype)
    size = config.data.image_size_px
    initialise = jax.jit(lambda key: init_variables(model, key, jnp.zeros((1, size, size, 3))))
    variables, lines = load_weights(config.model, initialise(jax.random.key(config.train.seed)))
    print("\n".join(lines))
    return model, variables


def _features(
    config: Config, experiment: Experiment, model: Any, variables: Any, mirrors: bool
) -> dict[str, Features]:
    """Features of each part; of the training images in all views."""

    def of(samples: Samples, mirrored: bool) -> Features:
        step = make_view_step(
            model, image_size_px=config.data.image_size_px, mirrored=mirrored, endpoint="pre_logits"
        )
        rows, back = np.unique(samples.rows, return_inverse=True)
        values = compute_views(step, variables, samples.store.images, rows, config.eval.batch_size)
        return Features(jnp.asarray(values[back]), jnp.asarray(samples.labels, jnp.int32))

    return {
        "train": of(experiment.train, mirrors),
        "val": of(experiment.val, False),
        "test": of(experiment.test, False),
    }


def _head_name(variables: Any, inputs: int) -> str:
    """The layer of the network that reads `pre_logits`."""
    found = [name for name in HEADS if name in variables["params"]]
    if not found or variables["params"][found[0]]["kernel"].shape[0] != inputs:
        raise UsageError(
            "the network does not end in a linear layer on its features",
            expected=f"one of {', '.join(HEADS)} with {inputs} inputs",
            where="model.name",
        )
    return found[0]


def _with_head(variables: Any, name: str, head: Head) -> dict[str, Any]:
    fitted = {"kernel": np.asarray(head.kernel), "bias": np.asarray(head.bias)}
    return {**variables, "params": {**variables["params"], name: fitted}}


def _row(sweep: Sweep, seed: int, point: int) -> dict[str, Any]:
    rate, decay = sweep.points[point]
    scores = {
        f"{part}_{name}": float(value[seed, point])
        for part, all_scores in (("train", sweep.train), ("val", sweep.val))
        for name, value in all_scores._asdict().items()
    }
    return {"learning_rate": rate, "weight_decay": decay, "seed": seed, **scores}


def _write_table(path: Path, sweep: Sweep) -> None:
    seeds, points = np.shape(sweep.val.loss)
    rows = [_row(sweep, seed, point) for point in range(points) for seed in range(seeds)]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _tell(summary: dict[str, Any], out: Path) -> None:
    best, test, images = summary["best"], summary["test"], summary["images"]
    print(
        f"{summary['heads']} heads on {summary['features']} features of {images['train']} images: "
        f"features {summary['features_s']:.1f} s, sweep {summary['sweep_s']:.1f} s"
    )
    print(
        f"best: learning rate {best['learning_rate']:g}, weight decay {best['weight_decay']:g}, seed {best['seed']}; "
        f"validation accuracy {best['val_accuracy']:.4f}, test accuracy {test['accuracy']:.4f} "
        f"({images['test']} images), balanced {test['balanced_accuracy']:.4f}"
    )
    print(f"all heads: {out / TABLE_FILE}")
    print(f"train the whole network from there: wbc-jax train … --model.pretrained {out / START_FILE}")

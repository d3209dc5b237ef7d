#!/usr/bin/env python3
"""How much a random split of BCCD's augmented copies flatters: one recipe, split by field and by single image.

`python benchmarks/leak.py --help`; needs BCCD's Kaggle release under WBC_DATA_DIR. Runs that are complete are read, not
repeated. The intervals take test images for independent, which copies of one field are not: they are too narrow.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from wbc_jax.bench.arguments import run_from_command_line
from wbc_jax.bench.schema import describe_machine
from wbc_jax.commands.train import RunRequest, train
from wbc_jax.config import Config, DataConfig, ModelConfig
from wbc_jax.configs import get_recipe
from wbc_jax.data.experiment import load_divided
from wbc_jax.errors import EXIT_OK
from wbc_jax.evaluate.statistics import difference_of_shares, wilson


@dataclass(frozen=True, kw_only=True)
class LeakOptions:
    recipe: str = "amnet:tiny"
    """Recipe of both splits."""
    model: str | None = None
    """Network by name, with its own defaults; None: the recipe's."""
    epochs: int = 16
    """Passes over the training set."""
    image_size_px: int = 80
    """Side of the network's image, px; the store's is a tenth larger."""
    seeds: tuple[int, ...] = (0,)
    """Each is the seed of a split and of its training."""
    runs: Path = Path("runs/leak")
    """Folder of the run directories."""
    out: Path = Path("leak.csv")
    """Table, written anew."""


def measure(options: LeakOptions) -> int:
    """Trains by field and by image, and writes the accuracies and their difference."""
    options.runs.mkdir(parents=True, exist_ok=True)
    rows = []
    for seed in options.seeds:
        for split_by in ("image", "group"):
            config = _config(options, seed, split_by)
            run_dir = options.runs / f"{split_by}_{config.model.name}_{options.image_size_px}px_{seed}"
            code = train(RunRequest(config=config, recipe=options.recipe, run_dir=run_dir))
            if code != EXIT_OK:
                return code
            rows.append(_row(config, run_dir))
            _write(options.out, rows)
    return EXIT_OK


def _config(options: LeakOptions, seed: int, split_by: str) -> Config:
    base, size = get_recipe(options.recipe), options.image_size_px
    data = dataclasses.replace(
        base.data,
        dataset="bccd_kaggle",
        split="random_622",
        split_seed=seed,
        split_by=split_by,  # type: ignore[arg-type]
        image_size_px=size,
        store_size_px=size + size // 10,
    )
    train_config = dataclasses.replace(base.train, epochs=options.epochs, seed=seed)
    model = base.model if options.model is None else ModelConfig(name=options.model)
    return dataclasses.replace(base, data=data, model=model, train=train_config)


def _row(config: Config, run_dir: Path) -> dict[str, object]:
    hits, total = _hits(run_dir)
    share = wilson(hits, total)
    return {
        "split": f"{config.data.split} by {config.data.split_by}",
        "model": config.model.name,
        "image_size_px": config.data.image_size_px,
        "epochs": config.train.epochs,
        "seed": config.train.seed,
        "test_images": total,
        "test_images_with_sibling_in_train_percent": round(100 * _siblings(config.data), 1),
        "hits": hits,
        "accuracy_percent": round(100 * share.value, 2),
        "low_percent": round(100 * share.low, 2),
        "high_percent": round(100 * share.high, 2),
    }


def _hits(run_dir: Path) -> tuple[int, int]:
    with (run_dir / "predictions" / "test.csv").open(newline="") as file:
        said = [row["predicted"] == row["label"] for row in csv.DictReader(file)]
    reported = json.loads((run_dir / "metrics.json").read_text())["test.accuracy"]
    if abs(np.mean(said) - reported) > 1e-6:
        raise AssertionError(f"predictions and metrics disagree: {np.mean(said)} and {reported}")
    return sum(said), len(said)


def _siblings(data: DataConfig) -> float:
    """Share of test images of which another picture of the same field is in training."""
    divided = load_divided(data)
    groups = divided.store.samples.groups
    known = set(groups[divided.split.train].tolist()) - {""}
    return float(np.mean([group in known for group in groups[divided.split.test]]))


def _write(out: Path, rows: list[dict[str, object]]) -> None:
    machine = describe_machine()
    table = list(rows)
    sums = {
        by: [
            sum(int(str(r[key])) for r in rows if str(r["split"]).endswith(by))
            for key in ("hits", "test_images")
        ]
        for by in ("image", "group")
    }
    if all(total for _, total in sums.values()):
        gap = difference_of_shares(*sums["image"], *sums["group"])
        table.append(
            {
                "split": "by image less by group, all seeds",
                "accuracy_percent": round(100 * gap.value, 2),
                "low_percent": round(100 * gap.low, 2),
                "high_percent": round(100 * gap.high, 2),
            }
        )
    facts = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": machine.commit,
        "device": machine.device,
        "versions": machine.versions,
    }
    with out.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=[*facts, *rows[0]])
        writer.writeheader()
        writer.writerows({**facts, **row} for row in table)
    for row in table:
        print(" ".join(f"{key}={value}" for key, value in row.items()))


if __name__ == "__main__":
    sys.exit(run_from_command_line(LeakOptions, measure))

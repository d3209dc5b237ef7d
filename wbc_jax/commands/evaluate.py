"""`wbc-jax evaluate`: a run scored again on its own images, or on those of another laboratory."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from rich.console import Console

from wbc_jax.catalog import label_map
from wbc_jax.commands.program_cache import enable_cache
from wbc_jax.commands.results import score_samples, training_baselines
from wbc_jax.commands.run import METRICS_FILE, LoadedRun, load_run
from wbc_jax.commands.scoring import predict_samples
from wbc_jax.config import DataConfig
from wbc_jax.data.experiment import PARTS, PreparedSamples, load_external, open_prepared
from wbc_jax.data.splits import split_from_json
from wbc_jax.errors import EXIT_OK, DataError, UsageError, WbcError
from wbc_jax.evaluate.attributes import Baselines
from wbc_jax.evaluate.cross_laboratory import (
    LaboratoryRow,
    laboratory_row,
    laboratory_table,
    write_laboratory_csv,
)
from wbc_jax.models.compiler import jit
from wbc_jax.runtime.json_files import read_json, write_json
from wbc_jax.train.steps import make_eval_step

SPLIT_FILE = "split.json"
EVALUATIONS = "evaluations"
TABLE_FILE = "cross_laboratory.csv"

SplitName = Literal["train", "val", "test", "all"]


@dataclass(frozen=True, kw_only=True)
class EvaluateData:
    """Which images."""

    dataset: str | None = None
    """Data set by name; None: the run's own."""
    raw_dir: str | None = None
    """Folder that holds the original files; None: the run's for its own data set, else $WBC_DATA_DIR."""
    cache_dir: str | None = None
    """Folder for prepared stores; None: the run's."""
    framing: Literal["auto", "squash", "pad", "crop", "nucleus"] | None = None
    """How an image becomes square; auto: as recommended for the data set; None: as the run's config says."""


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """Options of `wbc-jax evaluate`."""

    data: EvaluateData = field(default_factory=EvaluateData)
    split: SplitName | None = None
    """Part to score; None: the run's test set; of another data set its supplied test set, or all images where none
    is supplied."""
    batch_size: int = 64
    """Images per evaluation step; any value gives the same result."""
    bootstrap_samples: int = 1000
    """Resamples behind the 95 % intervals; 0: no intervals."""
    flip_average: bool | None = None
    """Average probabilities over the four mirror images; None: as the run's config says."""
    out: Path | None = None
    """Folder for results, one subfolder a data set; None: RUN_DIR/evaluations."""


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The images to score.

    Attributes:
        name: what the data set is called in files and tables.
        split: part of it.
        own: whether it is the run's own data set.
        samples: the images with labels of the run's task.
        left_out: cell class outside the task -> number of images.
    """

    name: str
    split: str
    own: bool
    samples: PreparedSamples
    left_out: Mapping[str, int]


def evaluate(run_dir: Path, options: EvaluateOptions) -> int:
    """Scores, writes and prints; returns the exit code.

    `<out>/<dataset>-<split>/` gets metrics.json, predictions and figures, `<out>/cross_laboratory.csv` a row for each
    data set that the run was scored on so far.

    Raises:
        UsageError: not a run directory, or options that cannot be.
        DataError: images or split missing, damaged, or changed since the training.
    """
    _check(options)
    run = load_run(run_dir)
    enable_cache(run.config.runtime.compile_cache, options.data.cache_dir or run.config.data.cache_dir)
    chosen = choose_samples(run, options.data, options.split)
    root = options.out or run.directory / EVALUATIONS
    folder = root / f"{_file_name(chosen.name)}-{chosen.split}"
    folder.mkdir(parents=True, exist_ok=True)
    print(_description(run, chosen))
    flip_average = run.config.eval.flip_average if options.flip_average is None else options.flip_average
    step = jit(
        make_eval_step(
            run.model, run.task, image_size_px=run.config.data.image_size_px, flip_average=flip_average
        )
    )
    variables = jax.device_put(run.variables)
    results = score_samples(
        lambda samples: predict_samples(step, variables, samples, options.batch_size),
        chosen.samples,
        run.task.class_names,
        name=chosen.split,
        directory=folder,
        bootstrap_samples=options.bootstrap_samples,
        baselines=lambda: own_baselines(run, options.data),
    )
    facts = {
        "dataset": chosen.name,
        "split": chosen.split,
        "own": chosen.own,
        "framing": chosen.samples.store.framing,
        "store_digest": chosen.samples.store.digest,
        "outside_task": dict(chosen.left_out),
    }
    write_json(folder / METRICS_FILE, facts | results.to_json(chosen.split))
    rows = laboratory_rows(run, root)
    write_laboratory_csv(rows, root / TABLE_FILE)
    results.show(f"{chosen.name}, {chosen.split}")
    Console().print(laboratory_table(rows))
    print(f"written: {folder} and {root / TABLE_FILE}")
    return EXIT_OK


def choose_samples(run: LoadedRun, data: EvaluateData, split: SplitName | None) -> Chosen:
    """The images that the options ask for.

    Raises:
        DataError: they are missing, damaged, or not those of the run.
    """
    if _is_own(run, data):
        samples, left_out = own_samples(run, split or "test", data)
        return Chosen(
            name=run.config.data.dataset,
            split=split or "test",
            own=True,
            samples=samples,
            left_out=left_out,
        )
    config = _data_config(run, data)
    chosen_split = split or _supplied_part(config)
    samples, left_out = load_external(config, run.task, chosen_split)
    name = config.dataset
    if name == "image_folder" and config.raw_dir is not None:
        name = f"{name} {Path(config.raw_dir).resolve().name}"
    return Chosen(name=name, split=chosen_split, own=False, samples=samples, left_out=left_out)


def own_samples(
    run: LoadedRun, split: str, data: EvaluateData | None = None
) -> tuple[PreparedSamples, dict[str, int]]:
    """Images of the run's own split as RUN_DIR/split.json names them, and how many of each class are outside its task.

    Raises:
        DataError: the split is missing or damaged, or the data set is not the one that the run was trained on.
    """
    data = data or EvaluateData()
    store = open_prepared(_data_config(run, data))
    value = read_json(run.directory / SPLIT_FILE)
    parts = split_from_json(value, store.samples)
    if data.framing is None and value["store_digest"] != store.digest:
        raise DataError(
            f"the prepared {run.config.data.dataset} now has digest {store.digest[:16]}",
            expected=f"{value['store_digest'][:16]}, as when the run was trained",
            where=str(store.directory),
            remedy="restore the images that the run was trained on, or point at them with --data.raw-dir",
        )
    labels = label_map(run.task, store.samples.cell_classes)[store.samples.cell_class]
    left_out = Counter(store.samples.cell_classes[c] for c in store.samples.cell_class[labels < 0])
    rows = np.concatenate([getattr(parts, name) for name in (PARTS if split == "all" else (split,))])
    if not len(rows):
        raise DataError(
            f"the run's split has no {split} images",
            where=str(run.directory / SPLIT_FILE),
            remedy="choose another --split",
        )
    samples = PreparedSamples(
        store=store, rows=rows, labels=labels[rows], attributes=store.samples.attributes[rows]
    )
    return samples, dict(left_out)


def own_baselines(run: LoadedRun, data: EvaluateData) -> Baselines | None:
    """What the run's own training images say about attributes; None, and a line that says so, without them."""
    own = dataclasses.replace(data, dataset=None, raw_dir=data.raw_dir if _is_own(run, data) else None)
    try:
        samples, _ = own_samples(run, "train", own)
    except WbcError as error:
        print(f"no attribute baselines: the run's training images cannot be read ({error.found})")
        return None
    return training_baselines(run.task, samples.store, samples.rows)


def laboratory_rows(run: LoadedRun, root: Path) -> list[LaboratoryRow]:
    """A row for each evaluation of the run below `root`; its own test set comes first."""
    rows: list[LaboratoryRow] = []
    for path in sorted(root.glob(f"*/{METRICS_FILE}")):
        facts = read_json(path)
        rows.append(
            laboratory_row(
                facts[facts["split"]],
                dataset=facts["dataset"],
                split=facts["split"],
                own=facts["own"],
                outside_task=sum(facts["outside_task"].values()),
            )
        )
    final = run.directory / METRICS_FILE
    if not any(row.own and row.split == "test" for row in rows) and final.is_file():
        metrics: dict[str, Any] = read_json(final)
        if "test" in metrics:
            own = run.config.data.dataset
            rows.append(laboratory_row(metrics["test"], dataset=own, split="test", own=True, outside_task=0))
    return sorted(rows, key=lambda row: (not (row.own and row.split == "test"), not row.own))


def _check(options: EvaluateOptions) -> None:
    problems = [
        f"{name} {value}: must be {least} or more"
        for name, value, least in (
            ("batch_size", options.batch_size, 1),
            ("bootstrap_samples", options.bootstrap_samples, 0),
        )
        if value < least
    ]
    if problems:
        raise UsageError("\n".join(problems), where="wbc-jax evaluate")


def _is_own(run: LoadedRun, data: EvaluateData) -> bool:
    """Two folders of the user's own images are two data sets; any other data set is itself wherever it lies."""
    if data.dataset not in (None, run.config.data.dataset):
        return False
    own_folder = run.config.data.raw_dir
    if data.dataset != "image_folder" or data.raw_dir is None or own_folder is None:
        return True
    return Path(data.raw_dir).expanduser().resolve() == Path(own_folder).expanduser().resolve()


def _data_config(run: LoadedRun, data: EvaluateData) -> DataConfig:
    """Prepared as for the run (size, framing), other images."""
    trained = run.config.data
    same = data.dataset in (None, trained.dataset)
    return dataclasses.replace(
        trained,
        dataset=data.dataset or trained.dataset,
        raw_dir=data.raw_dir or (trained.raw_dir if same else None),
        cache_dir=data.cache_dir or trained.cache_dir,
        framing=data.framing or trained.framing,
        task=trained.task if same else "native",
        split=trained.split if same else "auto",
        balance="none",
        max_images_per_class=None,
        max_held_out_per_class=trained.max_held_out_per_class if same else None,
        split_sha256=None,
    )


def _supplied_part(config: DataConfig) -> SplitName:
    return "test" if (open_prepared(config).samples.source_splits == "test").any() else "all"


def _file_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-.") or "data"


def _description(run: LoadedRun, chosen: Chosen) -> str:
    lines = [f"{chosen.name}, {chosen.split}: {len(chosen.samples.rows)} images"]
    if chosen.own and chosen.split in ("train", "all"):
        lines.append("these include images that the network was trained on: no measure of its quality")
    if chosen.left_out:
        counts = ", ".join(f"{name} {count}" for name, count in sorted(chosen.left_out.items()))
        lines.append(f"outside the run's task and left out of the data set: {counts}")
    present = set(chosen.samples.labels.tolist())
    absent = [name for index, name in enumerate(run.task.class_names) if index not in present]
    if absent:
        lines.append(f"classes without images here: {', '.join(absent)}; they are left out of class means")
    return "\n".join(lines)

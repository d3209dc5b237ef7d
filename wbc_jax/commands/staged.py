"""`wbc-jax train` in DAFFNet's steps: one command, a run directory for each stage, nothing done twice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jax

from wbc_jax import models
from wbc_jax.commands.config import known_facts
from wbc_jax.commands.program_cache import enable_cache
from wbc_jax.commands.pseudo import predict_pseudo_labels
from wbc_jax.commands.run import METRICS_FILE, load_run
from wbc_jax.commands.stage_dirs import set_aside, standing, write_inputs
from wbc_jax.commands.train import RUNS, RunRequest, record
from wbc_jax.commands.training import run_training
from wbc_jax.commands.weights import check_weights
from wbc_jax.config import Config
from wbc_jax.config_check import Facts, require_valid
from wbc_jax.config_morphology import is_predictor
from wbc_jax.data.experiment import Divided, Experiment, load_divided, load_experiment
from wbc_jax.data.held_out import HeldOut
from wbc_jax.data.mixture import hold_out, require_clean, require_present, with_pseudo_labels
from wbc_jax.data.pseudo_labels import CSV_NAME, file_digest, read_pseudo_labels, write_pseudo_labels
from wbc_jax.data.sources import annotated_data, source_data
from wbc_jax.errors import EXIT_OK, ConfigError, DataError, DivergedError
from wbc_jax.runtime.checkpoints import load_variables
from wbc_jax.runtime.json_files import read_json, write_json
from wbc_jax.runtime.rundir import STAGES_NAME, RunDir, new_run_dir, open_run_dir
from wbc_jax.train.stages import Stage, StageName, located, plan_stages, stage_inputs
from wbc_jax.weights.digest import variables_digest


@dataclass(frozen=True, kw_only=True, eq=False)
class Mix:
    """The data sets of all stages.

    Attributes:
        annotated: with true attributes.
        others: to be pseudo-labelled.
        held: validation and test images of every data set, the network's own among them.
        digest: of all images and splits.
    """

    annotated: Divided
    others: tuple[Divided, ...]
    held: HeldOut
    digest: str


def train_staged(request: RunRequest, processes: int) -> int:
    """Runs every stage that is not complete; returns the exit code.

    Raises:
        ConfigError: several processes, or a stage's config has problems.
        DataError: a data set is missing or damaged, or an image to be learned from is held out.
        DivergedError: a loss or gradient was not finite.
    """
    config = request.config
    if processes > 1:
        raise ConfigError(
            f"training in three steps on {processes} processes",
            expected="one process, on any number of devices",
            where="morphology.three_step",
            remedy="start it once, or train the stages by themselves: a daffnet:map recipe, then daffnet with "
            "--model.pretrained-map and --no-morphology.three-step",
        )
    stages = plan_stages(config, _predictor_name(config))
    _require_valid_stages(stages)
    check_weights(stages[0].config)
    names = {config.morphology.annotated_dataset or config.data.dataset, config.data.dataset}
    require_present(
        [source_data(config, name) for name in (*sorted(names), *config.morphology.other_datasets)],
        config.morphology.other_datasets,
    )
    enable_cache(config.runtime.compile_cache, config.data.cache_dir)
    mix = load_mix(config)
    root = new_run_dir(RUNS, request.recipe) if request.run_dir is None else open_run_dir(request.run_dir)
    with root:
        record(root.path, config, request.command)
        folders = [stage.directory for stage in stages]
        write_json(root.path / STAGES_NAME, {"stages": folders, "result": folders[-1]})
        root.set_state("running")
        try:
            code = _run_stages(stages, mix, request, root)
        except DivergedError:
            root.set_state("diverged")
            raise
        root.set_state("finished" if code == EXIT_OK else "interrupted")
        return code


def load_mix(config: Config) -> Mix:
    """Prepares and divides every data set.

    Raises:
        DataError: a data set is missing or damaged, or an image to be learned from is held out in another one.
    """
    annotated = load_divided(annotated_data(config))
    others = tuple(load_divided(source_data(config, name)) for name in config.morphology.other_datasets)
    every = {one.data.dataset: one for one in (annotated, *others)}
    if config.data.dataset not in every:
        every[config.data.dataset] = load_divided(config.data)
    held = hold_out(list(every.values()))
    learned = (annotated, every[config.data.dataset])
    require_clean(held, [(one.data.dataset, one.store.samples, one.split.train) for one in learned])
    digest = " ".join(f"{name} {one.store.digest}-{one.split.digest}" for name, one in sorted(every.items()))
    return Mix(annotated=annotated, others=others, held=held, digest=digest)


def _run_stages(stages: tuple[Stage, ...], mix: Mix, request: RunRequest, root: RunDir) -> int:
    """One stage after the other; ends early where one is interrupted."""
    paths: dict[StageName, str] = {}
    digests: dict[StageName, str] = {}
    summary: dict[str, Any] = {}
    repeated = False
    for number, stage in enumerate(stages, start=1):
        directory = root.path / stage.directory
        title = f"stage {number} of {len(stages)}, {stage.name}"
        experiment = _experiment(request.config, stage, paths) if stage.trains else None
        data = mix.digest if experiment is None else experiment.digest
        inputs = stage_inputs(stage, data, digests)
        state, changed = standing(directory, inputs, _is_trained if stage.trains else _is_labelled)
        if state == "outdated":
            kept = set_aside(directory)
            print(f"{title}: {', '.join(changed)} changed, so it is done anew; the former is kept in {kept}")
        if state == "complete":
            print(f"{title}: complete and unchanged, not repeated")
        else:
            repeated = True
            print(f"{title}: {directory}")
            with open_run_dir(directory) as stage_dir:
                write_inputs(directory, inputs)
                code = _run_stage(stage, experiment, mix, paths, request, stage_dir, root.path)
            if code != EXIT_OK:
                return code
        paths[stage.name] = str(directory if stage.trains else directory / CSV_NAME)
        digests[stage.name] = result_digest(stage, directory)
        summary[stage.name] = _numbers(read_json(directory / METRICS_FILE))
    result: dict[str, Any] = read_json(root.path / stages[-1].directory / METRICS_FILE)
    write_json(root.path / METRICS_FILE, {**result, "stages": summary})
    print(f"{root.path} is finished: test accuracy {result['test.accuracy']:.4f}", end="")
    print(f"; wbc-jax predict {root.path} IMAGES" if repeated else "; nothing to do")
    return EXIT_OK


def _run_stage(
    stage: Stage,
    experiment: Experiment | None,
    mix: Mix,
    paths: Mapping[StageName, str],
    request: RunRequest,
    stage_dir: RunDir,
    root: Path,
) -> int:
    config = located(stage, paths)
    record(stage_dir.path, config, request.command)
    if experiment is None:
        return _label(Path(paths["map"]), mix, config.morphology.pseudo_threshold, stage_dir)
    return run_training(config, experiment, stage_dir, resume=root)


def _label(predictor: Path, mix: Mix, threshold: float, stage_dir: RunDir) -> int:
    """The stage between the two trainings of the predictor."""
    stage_dir.set_state("running")
    labels = predict_pseudo_labels(load_run(predictor), mix.others, mix.held, threshold)
    digest = write_pseudo_labels(stage_dir.path / CSV_NAME, labels)
    used = labels.values >= 0
    facts = {
        "images": len(labels.ids),
        "attributes_used": float(used.mean()),
        "mean_probability": float(labels.probabilities.mean()),
        "sha256": digest,
        "model_sha256": labels.model_sha256,
        "sources": [asdict(source) for source in labels.sources],
    }
    write_json(stage_dir.path / METRICS_FILE, facts)
    stage_dir.set_state("finished")
    names = ", ".join(f"{source.images} of {source.dataset}" for source in labels.sources)
    print(
        f"attributes predicted for {names}; {used.mean():.1%} of them reach the threshold {threshold:g}, "
        f"mean probability {labels.probabilities.mean():.3f}"
    )
    return EXIT_OK


def result_digest(stage: Stage, directory: Path) -> str:
    """Digest of what a complete stage hands on."""
    if stage.trains:
        return variables_digest(load_variables(directory / "checkpoints"))
    return file_digest(directory / CSV_NAME)


def _experiment(config: Config, stage: Stage, paths: Mapping[StageName, str]) -> Experiment:
    """The data of a stage that trains, enough of them for its config."""
    experiment = load_experiment(stage.config.data)
    if stage.name == "map_mixed":
        experiment = with_pseudo_labels(
            experiment,
            stage.config.data,
            read_pseudo_labels(Path(paths["pseudo"])),
            raw_dir_of=lambda name: source_data(config, name).raw_dir,
            pseudo_weight=stage.config.morphology.pseudo_weight,
        )
    require_valid(located(stage, paths), Facts(num_train=len(experiment.train.rows)))
    return experiment


def _require_valid_stages(stages: tuple[Stage, ...]) -> None:
    """Problems of a later stage are found before the first begins."""
    placeholders: dict[StageName, str] = {stage.name: stage.directory for stage in stages}
    for stage in stages:
        config = located(stage, placeholders)
        require_valid(config, replace(known_facts(config), num_devices=jax.device_count()))


def _predictor_name(config: Config) -> str:
    name = config.model.name
    return name if is_predictor(name) else models.create_model(name, num_classes=1).map_name


def _is_trained(directory: Path) -> bool:
    return (directory / "checkpoints").is_dir()


def _is_labelled(directory: Path) -> bool:
    try:
        read_pseudo_labels(directory / CSV_NAME)
    except DataError as error:
        print(f"{error.found} ({error.where}); predicting again")
        return False
    return True


def _numbers(metrics: dict[str, Any]) -> dict[str, Any]:
    """The flat scores of a stage, without its details."""
    return {name: value for name, value in metrics.items() if isinstance(value, int | float | str)}

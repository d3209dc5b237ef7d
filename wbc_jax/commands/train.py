"""`wbc-jax train`: from a config to a finished run directory.

The order is: check the config, prepare and split the data, open the run directory, build and compile, run the loop,
then score the best state on the test set. What can be wrong is found before anything is compiled.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wbc_jax.commands.config import known_facts
from wbc_jax.commands.run import CONFIG_FILE, METRICS_FILE
from wbc_jax.config import Config
from wbc_jax.config_check import Facts, require_valid
from wbc_jax.config_json import CHANGEABLE, differences, digest, from_json, to_json
from wbc_jax.errors import EXIT_OK, ConfigError
from wbc_jax.runtime.startup import StartUp

if TYPE_CHECKING:
    from wbc_jax.data.experiment import Experiment

RUNS = Path("runs")


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """What to train, and where to keep it.

    Attributes:
        config: the resolved config.
        recipe: name for a new run directory.
        run_dir: run directory; None: a new one under runs/.
        command: words of the command line, for provenance.
        age_s: seconds since the command was given.
    """

    config: Config
    recipe: str
    run_dir: Path | None = None
    command: tuple[str, ...] = ("train",)
    age_s: float = 0.0


def train(request: RunRequest) -> int:
    """Trains to the end, or until a signal; returns the exit code.

    Raises:
        ConfigError: the config has problems, or differs from that of the run to be resumed.
        DataError: the data set is missing, damaged or leaking.
        DivergedError: a loss or gradient was not finite.
    """
    startup = StartUp(request.age_s)
    facts = known_facts(request.config)
    require_valid(request.config, facts)
    _require_same_config(request)

    from wbc_jax.runtime.distributed import joined_processes

    with joined_processes(request.config.runtime) as processes:
        return _train(request, facts, processes, startup)


def _train(request: RunRequest, facts: Facts, processes: int, startup: StartUp) -> int:
    """Prepares the data and trains, on all devices of all processes."""
    import jax

    from wbc_jax.commands.program_cache import enable_cache
    from wbc_jax.commands.together import open_together, require_one_config
    from wbc_jax.commands.weights import check_weights
    from wbc_jax.runtime.exchange import is_first, require_same, share_json
    from wbc_jax.runtime.rundir import RunDir, new_run_dir, open_run_dir

    config = request.config
    require_one_config(config, processes)
    if config.morphology.three_step:
        from wbc_jax.commands.staged import train_staged

        return train_staged(request, processes)
    if request.run_dir is not None and share_json(_is_finished(request.run_dir)):
        return _say_finished(request.run_dir) if is_first() else EXIT_OK
    require_valid(config, replace(facts, num_devices=jax.device_count()))
    check_weights(config)
    enable_cache(config.runtime.compile_cache, config.data.cache_dir)
    startup.ends("import")
    experiment = load_data(config)
    startup.ends("data")
    require_same("the data", experiment.digest, "prepare it anew where it differs: wbc-jax data prepare")
    require_valid(
        config, replace(facts, num_devices=jax.device_count(), num_train=len(experiment.train.rows))
    )

    def open_first() -> RunDir:
        if request.run_dir is None:
            return new_run_dir(RUNS, request.recipe)
        return open_run_dir(request.run_dir)

    with open_together(open_first) as run_dir:
        from wbc_jax.commands.training import run_training

        if is_first():
            record(run_dir.path, config, request.command)
        return run_training(config, experiment, run_dir, startup=startup)


def load_data(config: Config) -> Experiment:
    """The data of a config, with the pseudo-labelled images of other data sets where it names some."""
    from wbc_jax.data.experiment import load_experiment
    from wbc_jax.data.mixture import with_pseudo_labels
    from wbc_jax.data.pseudo_labels import read_pseudo_labels

    experiment = load_experiment(config.data)
    if config.morphology.pseudo_labels is None:
        return experiment
    return with_pseudo_labels(
        experiment,
        config.data,
        read_pseudo_labels(Path(config.morphology.pseudo_labels)),
        raw_dir_of=lambda _: config.morphology.other_raw_dir,
        pseudo_weight=config.morphology.pseudo_weight,
    )


def _require_same_config(request: RunRequest) -> None:
    """A run directory belongs to one config; what may change is listed in `CHANGEABLE`."""
    saved_path = None if request.run_dir is None else request.run_dir / CONFIG_FILE
    if saved_path is None or not saved_path.is_file():
        return
    saved = from_json(saved_path.read_text(), where=str(saved_path))
    if saved.morphology.three_step and request.config.morphology.three_step:
        return  # stages compare their inputs one by one
    changed = [d for d in differences(saved, request.config) if not d.startswith(CHANGEABLE)]
    if changed:
        raise ConfigError(
            "the run directory belongs to another config:\n  " + "\n  ".join(changed),
            where=str(request.run_dir),
            remedy="give another --run-dir, or resume with `wbc-jax train --run-dir "
            f"{shlex.quote(str(request.run_dir))}` alone",
        )


def _is_finished(run_dir: Path) -> bool:
    from wbc_jax.runtime.rundir import read_state

    return (run_dir / METRICS_FILE).is_file() and read_state(run_dir) == "finished"


def _say_finished(run_dir: Path) -> int:
    from wbc_jax.runtime.json_files import read_json

    metrics: dict[str, Any] = read_json(run_dir / METRICS_FILE)
    print(f"{run_dir} is finished: test accuracy {metrics['test.accuracy']:.4f}; nothing to do.")
    print("A new run needs another --run-dir.")
    return EXIT_OK


def record(path: Path, config: Config, command: tuple[str, ...]) -> None:
    """config.json once, provenance.json at each start."""
    from wbc_jax.commands.together import without_place
    from wbc_jax.runtime.json_files import write_json
    from wbc_jax.runtime.provenance import collect_provenance

    (path / CONFIG_FILE).write_text(to_json(without_place(config)))
    line = shlex.join(("wbc-jax", *command))
    write_json(
        path / "provenance.json", {**collect_provenance(), "arguments": line, "config_digest": digest(config)}
    )

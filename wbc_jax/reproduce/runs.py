"""Run directories behind exhibits: found finished, resumed where they stopped, or made by the code of `train`."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wbc_jax.commands.run import METRICS_FILE
from wbc_jax.commands.train import RunRequest, train
from wbc_jax.config import Config, DataConfig
from wbc_jax.errors import EXIT_OK, WbcError
from wbc_jax.reproduce.budget import with_values
from wbc_jax.reproduce.plan import LeftOut, PlannedRun
from wbc_jax.runtime.json_files import read_json, write_json
from wbc_jax.runtime.rundir import read_state, resolve_run_dir

LOG_FILE = "train.log"
COST_FILE = "cost.json"
_DATA_DIGITS = 8


class StoppedError(Exception):
    """A run was interrupted by a signal, after saving."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(f"interrupted, exit code {exit_code}")
        self.exit_code = exit_code


@dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """A run that is complete.

    Attributes:
        directory: its run directory.
        plan: what it was made for.
        metrics: its metrics.json.
        seconds: wall time of its last start; 0.0: it was found finished.
    """

    directory: Path
    plan: PlannedRun
    metrics: dict[str, Any]
    seconds: float

    @property
    def result(self) -> Path:
        """Directory of the predictions, figures and history: that of the last stage of a run in stages."""
        return resolve_run_dir(self.directory)


@dataclass(kw_only=True)
class Runs:
    """All runs below one folder.

    Attributes:
        folder: holds a run directory for each.
    """

    folder: Path
    _data: dict[tuple[DataConfig, tuple[str, ...]], str] = field(default_factory=dict)
    _failed: dict[str, LeftOut] = field(default_factory=dict)

    def ensure(self, run: PlannedRun) -> FinishedRun | LeftOut:
        """The finished run: as it is, or after training it to its end.

        A run that cannot be carried out (diverged, damaged data) becomes a reason, so that the others go on.

        Raises:
            StoppedError: a signal came.
        """
        if run.name in self._failed:
            return self._failed[run.name]
        try:
            return self._ensure(run)
        except WbcError as error:
            self._failed[run.name] = LeftOut(" ".join(str(error).split()))
            return self._failed[run.name]

    def _ensure(self, run: PlannedRun) -> FinishedRun | LeftOut:
        config = run.config
        if run.predictor is not None:
            predictor = self.ensure(run.predictor)
            if isinstance(predictor, LeftOut):
                return LeftOut(f"its attribute predictor: {predictor.reason}")
            config = with_values(config, {"model.pretrained_map": str(predictor.directory)})
        directory = self.folder / f"{run.name}-{self._data_digest(config)}"
        seconds = 0.0
        if not is_finished(directory):
            seconds = self._train(config, directory, run.name)
        return FinishedRun(
            directory=directory, plan=run, metrics=read_json(directory / METRICS_FILE), seconds=seconds
        )

    def _train(self, config: Config, directory: Path, name: str) -> float:
        """Trains to the end; what it prints goes to a file beside the run."""
        directory.mkdir(parents=True, exist_ok=True)
        start = time.monotonic()
        with (directory / LOG_FILE).open("a", encoding="utf-8") as log, contextlib.redirect_stdout(log):
            code = train(RunRequest(config=config, recipe=name, run_dir=directory, command=("reproduce",)))
        _release_memory()
        if code != EXIT_OK:
            raise StoppedError(code)
        seconds = time.monotonic() - start
        write_json(directory / COST_FILE, {"seconds": seconds})
        return seconds

    def _data_digest(self, config: Config) -> str:
        """Of the images and their split; of the data sets for pseudo-labels as well."""
        key = (config.data, config.morphology.other_datasets)
        if key not in self._data:
            from wbc_jax.data.experiment import load_experiment, open_prepared
            from wbc_jax.data.sources import source_data

            digests = [load_experiment(config.data).digest]
            digests += [open_prepared(source_data(config, name)).digest for name in key[1]]
            self._data[key] = hashlib.sha256(" ".join(digests).encode()).hexdigest()[:_DATA_DIGITS]
        return self._data[key]

    def known(self, run: PlannedRun) -> Path | None:
        """A finished run of that name, whatever its data; None: there is none yet."""
        return next((p for p in sorted(self.folder.glob(f"{run.name}-*")) if is_finished(p)), None)

    def costs(self) -> Iterator[tuple[Path, float]]:
        """Run directories whose wall time is on record, with the seconds."""
        for path in sorted(self.folder.glob(f"*/{COST_FILE}")):
            yield path.parent, float(read_json(path)["seconds"])


def is_finished(directory: Path) -> bool:
    """Whether a run directory holds a complete run."""
    return (directory / METRICS_FILE).is_file() and read_state(directory) == "finished"


def _release_memory() -> None:
    """Compiled programs of a finished run would stay in memory for good."""
    import jax

    jax.clear_caches()
    gc.collect()

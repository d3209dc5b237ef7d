"""Which runs exhibits need, each once: arms become configs, absent data and weights become reasons.

A run is named by the digest of its config without the places of files, with the digests of the weights it starts from.
The digest of the images and their split joins the name when they are known, at the start of the run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from wbc_jax.config import Config, RuntimeConfig
from wbc_jax.config_json import digest
from wbc_jax.configs import recipe_names
from wbc_jax.data.registry import DATASETS, find_raw
from wbc_jax.errors import DataError
from wbc_jax.models import list_models
from wbc_jax.reproduce.budget import Budget, arm_config, with_values
from wbc_jax.reproduce.exhibit import Arm, Exhibit
from wbc_jax.weights.download import PUBLISHED

_DIGITS = 12


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One run to be made, or found made.

    Attributes:
        name: stem of its run directory.
        config: complete, but for the path of a predictor's weights.
        arm: what it is.
        seed: its seed.
        stand_in: data set that it runs on in place of the arm's own; None: the arm's own.
        predictor: run whose attribute predictor it starts from.
    """

    name: str
    config: Config
    arm: Arm
    seed: int
    stand_in: str | None = None
    predictor: PlannedRun | None = None


@dataclass(frozen=True)
class LeftOut:
    """Why an arm is not run, and what would help."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where things lie.

    Attributes:
        raw_dir: raw data sets; None: $WBC_DATA_DIR.
        cache_dir: prepared stores; None: $WBC_CACHE_DIR, else the user's cache directory.
        weights_dir: ImageNet weights; None: all networks start from random weights.
    """

    raw_dir: Path | None = None
    cache_dir: Path | None = None
    weights_dir: Path | None = None


@dataclass(kw_only=True)
class Planner:
    """Turns arms into runs; remembers what it has looked up."""

    budget: Budget
    places: Places = field(default_factory=Places)
    _absent: dict[str, str | None] = field(default_factory=dict)
    _digests: dict[Path, str] = field(default_factory=dict)

    def seeds(self) -> range:
        """Seeds of every arm."""
        return range(self.budget.seeds)

    def plan(self, exhibits: Iterable[Exhibit]) -> list[PlannedRun]:
        """The runs of exhibits, each once, predictors before what starts from them."""
        found: dict[str, PlannedRun] = {}
        for exhibit in exhibits:
            for arm in exhibit.arms():
                for seed in self.seeds():
                    run = self.resolve(arm, seed)
                    if isinstance(run, PlannedRun):
                        found.setdefault(run.name, run)
        return list(found.values())

    def resolve(self, arm: Arm, seed: int) -> PlannedRun | LeftOut:
        """The run of an arm, or why there is none."""
        if arm.recipe not in recipe_names():
            return LeftOut(f"the recipe {arm.recipe} is not part of this version")
        stand_in = None
        if self.absence(arm.dataset) is not None:
            stand_in = self.budget.stand_in
            if stand_in is None:
                return LeftOut(self.absence(arm.dataset) or "")
        predictor = None if arm.predictor is None else self.resolve(arm.predictor, seed)
        if isinstance(predictor, LeftOut):
            return LeftOut(f"its attribute predictor: {predictor.reason}")
        weights = self._weights(arm)
        if isinstance(weights, LeftOut):
            return weights
        config = arm_config(arm, self.budget, seed, {name: str(path) for name, path in weights.items()})
        config = with_values(config, self._place(stand_in or arm.dataset))
        if config.morphology.other_datasets:
            others = self._present(config.morphology.other_datasets, config.data.dataset)
            if not others:
                wanted = ", ".join(config.morphology.other_datasets)
                return LeftOut(f"none of the data sets for pseudo-labels is here: {wanted}")
            raw = self.places.raw_dir
            elsewhere = None if raw is None else str(raw)
            places = {"morphology.other_datasets": others, "morphology.other_raw_dir": elsewhere}
            config = with_values(config, places)
        if config.model.name not in list_models():
            return LeftOut(f"the network {config.model.name} is not part of this version")
        marks = [f"{name}={self._digest(path)}" for name, path in sorted(weights.items())]
        if predictor is not None:
            marks.append(f"predictor={predictor.name}")
        return PlannedRun(
            name=f"{config.data.dataset}-{config.model.name}-{_name_digest(config, marks)}",
            config=config,
            arm=arm,
            seed=seed,
            stand_in=stand_in,
            predictor=predictor,
        )

    def absence(self, dataset: str) -> str | None:
        """Why a data set cannot be used and where to get it; None: it is here."""
        if dataset not in self._absent:
            self._absent[dataset] = self._look_for(dataset)
        return self._absent[dataset]

    def _look_for(self, dataset: str) -> str | None:
        facts = DATASETS[dataset]
        if facts.generated:
            return None
        try:
            find_raw(dataset, self.places.raw_dir)
        except DataError:
            return (
                f"the data set {dataset} ({facts.title}) is not here; get it from {facts.source}, unpack it as "
                f"{facts.layout}, and point at it with --raw-dir or WBC_DATA_DIR"
            )
        return None

    def _present(self, names: tuple[str, ...], main: str) -> tuple[str, ...]:
        """Those of the data sets for pseudo-labels that are here; of the smoke budget one."""
        found = tuple(name for name in names if self.absence(name) is None and name != main)
        return found[:1] if self.budget.small_networks else found

    def _place(self, dataset: str) -> dict[str, object]:
        raw, cache = self.places.raw_dir, self.places.cache_dir
        return {
            "data.dataset": dataset,
            "data.raw_dir": None if raw is None else str(raw),
            "data.cache_dir": None if cache is None else str(cache),
            "runtime.cluster": "off",
        }

    def _weights(self, arm: Arm) -> dict[str, Path] | LeftOut:
        """Files for `arm.imagenet`: all, none, or a reason."""
        if not arm.imagenet:
            return {}
        if self.budget.small_networks:
            if arm.needs_imagenet:
                return LeftOut("ImageNet weights do not fit the small networks of this budget")
            return {}
        found = {name: self._weights_file(network) for name, network in arm.imagenet}
        missing = [network for name, network in arm.imagenet if found[name] is None]
        if not missing:
            return {name: path for name, path in found.items() if path is not None}
        if not arm.needs_imagenet:
            return {}
        wanted = ", ".join(_weights_source(network) for network in missing)
        return LeftOut(
            f"ImageNet weights are missing: {wanted}; put them into a folder and give --weights-dir"
        )

    def _weights_file(self, network: str) -> Path | None:
        folder = self.places.weights_dir
        if folder is None:
            return None
        files = sorted(
            p for p in Path(folder).glob(f"{network}[-.]*") if p.suffix in (".safetensors", ".pth")
        )
        return next((p for p in files if p.suffix == ".safetensors"), files[0] if files else None)

    def _digest(self, path: Path) -> str:
        if path not in self._digests:
            with path.open("rb") as file:
                self._digests[path] = hashlib.file_digest(file, "sha256").hexdigest()
        return self._digests[path]


def _weights_source(network: str) -> str:
    published = PUBLISHED.get((network, "v1"))
    return network if published is None else f"{network} ({published.url})"


def _name_digest(config: Config, marks: list[str]) -> str:
    """Digest of what decides a run's result: no places of files, no logs, no launcher."""
    places = ("data.raw_dir", "data.cache_dir", "morphology.other_raw_dir")
    plain = with_values(config, {**dict.fromkeys(places), "log.tensorboard": False})
    plain = with_values(
        plain, {f"model.{mark.partition('=')[0]}": None for mark in marks if "pretrained" in mark}
    )
    values = {
        "runtime." + name: getattr(RuntimeConfig(), name) for name in RuntimeConfig.__dataclass_fields__
    }
    text = "\n".join([digest(with_values(plain, values)), *marks])
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]

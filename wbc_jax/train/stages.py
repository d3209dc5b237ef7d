"""DAFFNet's steps as stages: what each trains, and on what earlier ones it depends. [pure]

    map ──► pseudo ──► map_mixed ──► fusion

`map` learns the true attributes; `pseudo` predicts those of other data sets' training images; `map_mixed` learns both;
`fusion` trains the network with that predictor. Without other data sets `map` leads straight to `fusion`, and a
predictor alone ends before it. A stage is done anew only when one of its inputs has changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from wbc_jax.config import Config, ModelConfig, MorphologyConfig
from wbc_jax.config_json import lasting_digest
from wbc_jax.config_morphology import is_predictor
from wbc_jax.data.sources import annotated_data

StageName = Literal["map", "pseudo", "map_mixed", "fusion"]
NUMBERS: dict[StageName, int] = {"map": 1, "pseudo": 2, "map_mixed": 3, "fusion": 4}


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage.

    Attributes:
        name: which.
        config: what it runs with, but for the paths of earlier stages' results (`located`).
        needs: earlier stages whose results it takes.
    """

    name: StageName
    config: Config
    needs: tuple[StageName, ...] = ()

    @property
    def directory(self) -> str:
        """Its folder below the run directory."""
        return f"stages/{NUMBERS[self.name]}_{self.name}"

    @property
    def trains(self) -> bool:
        return self.name != "pseudo"


def plan_stages(config: Config, predictor_name: str) -> tuple[Stage, ...]:
    """The stages of a config with `morphology.three_step`, in order.

    Args:
        config: of the whole.
        predictor_name: network of the attribute predictor: the config's own, or that of its DAFFNet.
    """
    morphology = config.morphology
    first = _predictor_config(config, predictor_name)
    stages = [Stage(name="map", config=_with_epochs(first, morphology.map_epochs))]
    if morphology.other_datasets:
        stages.append(Stage(name="pseudo", config=config, needs=("map",)))
        mixed = replace(
            _with_epochs(first, morphology.mixed_epochs),
            morphology=MorphologyConfig(
                pseudo_weight=morphology.pseudo_weight, other_raw_dir=morphology.other_raw_dir
            ),
        )
        needs: tuple[StageName, ...] = ("pseudo",)
        if morphology.mixed_start == "map":
            mixed = replace(mixed, model=replace(mixed.model, pretrained_map=None))
            needs = ("map", "pseudo")
        stages.append(Stage(name="map_mixed", config=mixed, needs=needs))
    if not is_predictor(config.model.name):
        fusion = replace(
            config,
            model=replace(config.model, pretrained_map=None),
            morphology=MorphologyConfig(),
        )
        stages.append(Stage(name="fusion", config=fusion, needs=(stages[-1].name,)))
    return tuple(stages)


def located(stage: Stage, results: Mapping[StageName, str]) -> Config:
    """The config of a stage with the paths of the results that it needs: run directories, and the pseudo-labels."""
    config = stage.config
    if stage.name == "map_mixed":
        config = replace(config, morphology=replace(config.morphology, pseudo_labels=results["pseudo"]))
        if "map" in stage.needs:
            config = replace(config, model=replace(config.model, pretrained=results["map"]))
    if stage.name == "fusion":
        config = replace(config, model=replace(config.model, pretrained_map=results[stage.needs[0]]))
    return config


def stage_inputs(stage: Stage, data: str, results: Mapping[StageName, str]) -> dict[str, str]:
    """What a stage's result follows from, by name.

    Args:
        stage: which.
        data: digest of the images and splits that it uses.
        results: digests of earlier stages' results.
    """
    if stage.trains:
        meaning = lasting_digest(stage.config)
    else:  # the rest of the config reaches it through the predictor and the data alone
        meaning = f"threshold {stage.config.morphology.pseudo_threshold!r}"
    return {"config": meaning, "data": data, **{need: results[need] for need in stage.needs}}


def _predictor_config(config: Config, name: str) -> Config:
    alone = is_predictor(config.model.name)
    model = config.model if alone else ModelConfig(name=name, pretrained_map=config.model.pretrained_map)
    share = config.train.attribute_share if alone else config.morphology.attribute_share
    return replace(
        config,
        data=annotated_data(config),
        model=model,
        train=replace(
            config.train, attribute_share=share, freeze=config.train.freeze if alone else (), cache_map=False
        ),
        eval=replace(config.eval, select="attribute_accuracy"),
        morphology=MorphologyConfig(),
    )


def _with_epochs(config: Config, epochs: int | None) -> Config:
    return config if epochs is None else replace(config, train=replace(config.train, epochs=epochs))

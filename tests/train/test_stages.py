"""The plan of DAFFNet's steps: which stages there are, what each runs with, and what makes one outdated."""

from __future__ import annotations

from dataclasses import replace

import pytest

from wbc_jax.config import Config
from wbc_jax.config_check import Facts, validate
from wbc_jax.configs import get_recipe
from wbc_jax.train.stages import located, plan_stages, stage_inputs

RESULTS = {"map": "runs/a", "pseudo": "runs/b.csv", "map_mixed": "runs/c"}


def tiny(**morphology: object) -> Config:
    config = get_recipe("daffnet:tiny")
    return replace(config, morphology=replace(config.morphology, **morphology))


def test_the_paper_recipe_has_four_stages_that_hand_on() -> None:
    stages = plan_stages(get_recipe("daffnet"), "map_resnet50")
    assert [stage.directory for stage in stages] == [
        "stages/1_map", "stages/2_pseudo", "stages/3_map_mixed", "stages/4_fusion",
    ]  # fmt: skip
    assert [stage.needs for stage in stages] == [(), ("map",), ("pseudo",), ("map_mixed",)]
    assert [stage.trains for stage in stages] == [True, False, True, True]
    first, _, mixed, fusion = (located(stage, RESULTS) for stage in stages)
    assert (first.model.name, first.train.attribute_share) == ("map_resnet50", 0.8)
    assert first.eval.select == "attribute_accuracy"
    assert (mixed.morphology.pseudo_labels, mixed.model.pretrained) == ("runs/b.csv", None)
    assert (fusion.model.name, fusion.model.pretrained_map) == ("daffnet", "runs/c")
    assert (fusion.train.attribute_share, fusion.eval.select) == (0.0, "accuracy")
    assert not any(stage.morphology.three_step for stage in (first, mixed, fusion))


@pytest.mark.parametrize("name", ["daffnet", "daffnet:tiny", "daffnet:map_dsl_ssl"])
def test_every_stage_is_a_valid_run_of_its_own(name: str) -> None:
    config = get_recipe(name)
    predictor = {"daffnet": "map_resnet50", "daffnet_tiny": "map_tiny"}.get(
        config.model.name, config.model.name
    )
    for stage in plan_stages(config, predictor):
        if stage.trains:
            assert validate(located(stage, RESULTS), Facts(num_devices=1)) == []


def test_a_second_training_may_go_on_from_the_first() -> None:
    stages = {stage.name: stage for stage in plan_stages(tiny(mixed_start="map"), "map_tiny")}
    assert stages["map_mixed"].needs == ("map", "pseudo")
    assert located(stages["map_mixed"], RESULTS).model.pretrained == "runs/a"
    assert (stages["map"].config.train.epochs, stages["map_mixed"].config.train.epochs) == (6, 4)


def test_without_other_data_sets_the_first_predictor_goes_into_the_network() -> None:
    config = tiny(other_datasets=(), mixed_epochs=None, mixed_start="fresh")
    first, fusion = plan_stages(config, "map_tiny")
    assert (first.name, fusion.name, fusion.needs) == ("map", "fusion", ("map",))
    assert located(fusion, RESULTS).model.pretrained_map == "runs/a"


def test_a_predictor_alone_ends_before_the_fusion_and_keeps_its_own_share() -> None:
    stages = plan_stages(get_recipe("daffnet:map_dsl_ssl"), "map_resnet50")
    assert [stage.name for stage in stages] == ["map", "pseudo", "map_mixed"]
    assert {stage.config.train.attribute_share for stage in stages if stage.trains} == {0.8}


def test_true_attributes_may_lie_in_another_data_set() -> None:
    config = get_recipe("daffnet")
    config = replace(
        config,
        data=replace(config.data, dataset="lisc", task="native", split="auto"),
        morphology=replace(config.morphology, annotated_dataset="pbc", other_raw_dir="/raw"),
    )
    first, *_, fusion = plan_stages(config, "map_resnet50")
    assert (first.config.data.dataset, first.config.data.raw_dir) == ("pbc", "/raw")
    assert fusion.config.data == config.data


def test_inputs_follow_what_decides_the_result_and_nothing_else() -> None:
    def inputs(config: Config) -> list[dict[str, str]]:
        return [stage_inputs(stage, "data", RESULTS) for stage in plan_stages(config, "map_tiny")]

    config = tiny()
    before = inputs(config)
    assert before[3] == {**before[3], "data": "data", "map_mixed": "runs/c"}
    same = replace(
        config,
        log=replace(config.log, every_steps=99),
        data=replace(config.data, cache_dir="/elsewhere", loader="stream"),
    )
    assert inputs(same) == before
    changed = {
        "train": replace(config, train=replace(config.train, epochs=7)),
        "map_epochs": tiny(map_epochs=9),
        "pseudo_threshold": tiny(pseudo_threshold=0.9),
        "pseudo_weight": tiny(pseudo_weight=0.5),
    }
    differing = {
        name: [a != b for a, b in zip(inputs(other), before, strict=True)] for name, other in changed.items()
    }
    assert differing == {
        "train": [False, False, False, True],
        "map_epochs": [True, False, False, False],
        "pseudo_threshold": [False, True, False, False],
        "pseudo_weight": [False, False, True, False],
    }


@pytest.mark.parametrize(
    ("config", "path", "part"),
    [
        (tiny(other_datasets=("synthetic_smear",)), "morphology.other_datasets", "annotated data set itself"),
        (tiny(other_datasets=("lisc", "lisc")), "morphology.other_datasets", "named twice"),
        (tiny(other_datasets=("lsc",)), "morphology.other_datasets", "is not known"),
        (tiny(pseudo_labels="a.csv"), "morphology.pseudo_labels", "itself"),
        (tiny(three_step=False, mixed_start="fresh"), "morphology.map_epochs", "no effect"),
        (
            replace(tiny(), model=replace(tiny().model, name="scam_tiny")),
            "morphology.three_step",
            "needs a network with an attribute predictor",
        ),
        (replace(tiny(), data=replace(tiny().data, balance="offline")), "data.balance", "of several"),
    ],
)
def test_what_cannot_be_is_named(config: Config, path: str, part: str) -> None:
    datasets = ("synthetic_smear", "synthetic_smear_plain", "lisc")
    found = {problem.path: problem for problem in validate(config, Facts(datasets=datasets))}
    assert part in found[path].rule

"""The registry holds every table and figure of the papers, and every arm is a config that can be run."""

from __future__ import annotations

import pytest

from wbc_jax.commands.config import known_facts
from wbc_jax.config_check import validate
from wbc_jax.config_json import digest
from wbc_jax.errors import UsageError
from wbc_jax.reproduce.budget import BUDGETS, arm_config, with_values
from wbc_jax.reproduce.cautions import CAUTIONS
from wbc_jax.reproduce.drawing import DRAWINGS
from wbc_jax.reproduce.exhibit import RUNLESS, Exhibit
from wbc_jax.reproduce.plan import PlannedRun, Planner
from wbc_jax.reproduce.published import amnet, daffnet, scam
from wbc_jax.reproduce.registry import EXHIBITS, find_exhibits

ALL = [exhibit for exhibits in EXHIBITS.values() for exhibit in exhibits]


def _keys(kind: str, last: int) -> set[str]:
    return {f"{kind}{number}" for number in range(1, last + 1)}


PRINTED = {
    "scam": _keys("table", 12) | _keys("figure", 10),
    "daffnet": _keys("table", 6) | _keys("figure", 7) | {"s1", "s2", "s3"},
    "amnet": _keys("table", 9) | _keys("figure", 13) | {"s1", "s2", "s3", "s5", "s6"},
}


@pytest.mark.parametrize("paper", sorted(PRINTED))
def test_every_table_and_figure_of_a_paper_is_there(paper: str) -> None:
    keys = [exhibit.key for exhibit in EXHIBITS[paper]]
    assert PRINTED[paper] <= set(keys)
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("exhibit", ALL, ids=lambda e: f"{e.paper}-{e.key}")
def test_exhibit_is_whole(exhibit: Exhibit) -> None:
    assert exhibit.kind in DRAWINGS
    assert set(exhibit.cautions) <= set(CAUTIONS)
    assert bool(exhibit.rows) or bool(exhibit.datasets)
    assert all(row.arm is not None or row.published for row in exhibit.rows)
    if exhibit.kind in RUNLESS:
        assert exhibit.arms() == ()
    elif exhibit.kind in ("scores", "classes", "attributes"):
        assert exhibit.scores
        assert exhibit.arms()


@pytest.mark.parametrize("budget", sorted(BUDGETS))
def test_every_arm_is_a_valid_config(budget: str) -> None:
    planner = Planner(budget=BUDGETS[budget])
    planner._absent = dict.fromkeys(
        (arm.dataset for exhibit in ALL for row in exhibit.rows for arm in [row.arm] if arm), None
    )
    runs = planner.plan(ALL)
    assert runs
    for run in runs:
        assert validate(run.config, known_facts(run.config)) == [], run.name


def test_arms_of_one_config_share_a_run() -> None:
    planner = Planner(budget=BUDGETS["paper"])
    planner._absent = {"ldwbc": None}
    attention, branches = (find_exhibits("scam", (key,))[0] for key in ("table5", "table7"))
    names = [run.name for run in planner.plan([attention, branches])]
    assert len(names) == 3 * (8 + 2)
    assert len(set(names)) == len(names)
    both = planner.resolve(next(r.arm for r in branches.rows if r.ours and r.arm), 1)
    assert isinstance(both, PlannedRun)
    assert both.name in names


def test_budgets_change_what_they_say_and_nothing_else() -> None:
    arm = next(
        row.arm for row in find_exhibits("scam", ("table5",))[0].rows if row.label == "CAM" and row.arm
    )
    paper, small, smoke = (arm_config(arm, BUDGETS[name], 1) for name in ("paper", "small", "smoke"))
    assert (paper.model.attention, paper.train.seed, paper.model.name) == ("cam", 1, "scam")
    assert (paper.train.epochs, small.train.epochs, smoke.train.epochs) == (50, 15, 1)
    assert (small.data.image_size_px, smoke.model.name, smoke.data.max_images_per_class) == (
        128,
        "scam_tiny",
        8,
    )
    back = with_values(
        small,
        {"train.epochs": 50, "data.image_size_px": 224, "data.store_size_px": 256, "log.tensorboard": True},
    )
    assert digest(back) == digest(paper)
    with pytest.raises(ValueError, match=r"no field model\.attentoin"):
        with_values(paper, {"model.attentoin": "cam"})


def test_unknown_names_are_refused_with_the_closest_one() -> None:
    with pytest.raises(UsageError, match="did you mean scam"):
        find_exhibits("scan", ())
    with pytest.raises(UsageError, match="did you mean figure10"):
        find_exhibits("scam", ("table4", "figur10"))
    assert [e.key for e in find_exhibits("scam", ("Figure 6", "table_4"))] == ["table4", "figure6"]


def test_published_numbers_agree_with_each_other() -> None:
    """Each value is checked against another that the papers print, within rounding."""
    assert scam.LDWBC_TEST["macro_f1"] == daffnet.QUOTED["LDWBC"]["[37] 2022 (SCAM)"]["weighted_f1"]
    assert amnet.SEARCH[20, 32] == amnet.BCCD_TRI_NETWORKS["WBC-AMNet"]
    for classes in (
        amnet.BCCD_TRI_CLASSES,
        amnet.BCCD_QUAD_CLASSES,
        *amnet.WBCS_TRI.values(),
        *amnet.WBCS_QUAD.values(),
    ):
        for name, (recall, precision, f1) in classes.items():
            if name != "total":
                assert f1 == pytest.approx(2 * recall * precision / (recall + precision), abs=0.06), (
                    name,
                    f1,
                )
    for rows in daffnet.ABLATION.values():
        for _, recall, _, accuracy, _ in rows:
            assert recall == accuracy
    for index, overall in enumerate(daffnet.STRATEGIES["DSL + SSL"][:6]):
        column = [row[index] for row in daffnet.ATTRIBUTES.values()]
        assert sum(column) / len(column) == pytest.approx(overall, abs=0.011)
    hits = amnet.BCCD_TEST_IMAGES * amnet.BCCD_TRI_NETWORKS["WBC-AMNet"][0] / 100
    assert hits == pytest.approx(round(hits), abs=0.2)

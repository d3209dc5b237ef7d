"""`wbc-jax reproduce` from the command line: documents, shared and kept runs, what is not here."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_training import FakeTraining

from wbc_jax.cli import main
from wbc_jax.reproduce import runs

Reproduce = Callable[..., int]


@pytest.fixture
def reproduce(tmp_path: Path, raw_dir: Path, store_dir: Path) -> Reproduce:
    """Runs the command, by default at the smoke budget with LISC as stand-in."""

    def run(*words: str, budget: str = "smoke", stand_in: str | None = "lisc") -> int:
        places = ("--raw-dir", str(raw_dir), "--cache-dir", str(store_dir), "--out", str(tmp_path / "out"))
        extra = () if stand_in is None else ("--stand-in", stand_in)
        return main(["reproduce", *words, "--budget", budget, *places, *extra])

    return run


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_table_has_ours_the_published_value_the_difference_and_the_cautions(
    reproduce: Reproduce, training: FakeTraining, tmp_path: Path
) -> None:
    assert reproduce("scam", "table7") == 0
    assert [c.model.branches for c in training.configs] == ["resnet", "densenet", "both"]
    folder = tmp_path / "out" / "scam-smoke"
    text = (folder / "table7.md").read_text()
    assert "machinery is tested" in text
    assert "`lisc` stands in for it" in text
    assert "github.com" in text or "http" in text  # where to get LDWBC
    assert "paper 98.06 (" in text
    assert "AF1 is the harmonic mean" in text
    assert "McNemar p = " in text
    rows = [r for r in _read(folder / "table7.csv") if r["row"] == "both" and r["score"] == "accuracy"]
    assert len(rows) == 1
    assert rows[0]["published"] == "98.06"
    assert float(rows[0]["ours"]) - 98.06 == pytest.approx(float(rows[0]["difference"]), abs=1e-3)
    assert float(rows[0]["ours"]) == pytest.approx(
        100 * int(rows[0]["hits"]) / int(rows[0]["total"]), abs=1e-3
    )
    assert float(rows[0]["low_95"]) <= float(rows[0]["ours"]) <= float(rows[0]["high_95"])
    assert rows[0]["note"] == "stand-in"
    assert (folder / "README.md").read_text().count("table7.md") == 1


def test_finished_runs_are_kept_and_shared(reproduce: Reproduce, training: FakeTraining) -> None:
    assert reproduce("scam", "table7") == 0
    assert len(training.configs) == 3
    assert reproduce("scam", "table5", "figure7") == 0
    assert len(training.configs) == 3 + 7  # SCAM itself is there already
    assert reproduce("scam", "table5", "table6", "table7", "figure7") == 0
    assert len(training.configs) == 10


def test_other_images_or_settings_are_other_runs(
    reproduce: Reproduce, training: FakeTraining, raw_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tiny_run import save_picture

    reproduce("scam", "figure10")
    assert len(training.configs) == 2
    extra = save_picture(raw_dir / "lisc" / "baso" / "extra.png", 999)
    try:
        reproduce("scam", "figure10")
        assert len(training.configs) == 4
    finally:
        extra.unlink()
    assert reproduce("scam", "table7", "--seeds", "2") == 0
    assert sorted({c.train.seed for c in training.configs[4:]}) == [0, 1]


def test_interrupted_table_goes_on(
    reproduce: Reproduce, training: FakeTraining, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training.exit_code = 130
    assert reproduce("scam", "table7") == 130
    assert "the same command goes on" in capsys.readouterr().out
    assert not (tmp_path / "out" / "scam-smoke" / "table7.md").exists()
    training.exit_code = 0
    assert reproduce("scam", "table7") == 0
    assert len(training.configs) == 1 + 3


def test_absent_data_set_is_named_and_the_rest_goes_on(
    reproduce: Reproduce, training: FakeTraining, tmp_path: Path
) -> None:
    assert reproduce("scam", "table4", "table11", budget="small", stand_in=None) == 0
    folder = tmp_path / "out" / "scam-small"
    text = (folder / "table4.md").read_text()
    assert "the data set ldwbc" in text
    assert "get it from http" in text
    assert "not run" in text
    assert {c.data.dataset for c in training.configs} == {"lisc"}
    assert {r["data_set"] for r in _read(folder / "table11.csv") if r["seeds"]} == {"lisc"}


def test_several_seeds_give_a_mean_and_its_interval(
    reproduce: Reproduce, training: FakeTraining, tmp_path: Path
) -> None:
    assert reproduce("scam", "table11", "--seeds", "3") == 0
    rows = [r for r in _read(tmp_path / "out" / "scam-smoke" / "table11.csv") if r["score"] == "accuracy"]
    assert {r["seeds"] for r in rows} == {"3"}
    assert "over 3 seeds" in (tmp_path / "out" / "scam-smoke" / "table11.md").read_text()
    assert all(len(r["runs"].split()) == 3 for r in rows)


def test_a_run_that_fails_is_a_line_and_not_the_end(
    reproduce: Reproduce, training: FakeTraining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wbc_jax.errors import DivergedError

    def diverging(request: object) -> int:
        if request.config.model.branches == "resnet":  # type: ignore[attr-defined]
            raise DivergedError("the loss is not finite", remedy="lower the learning rate")
        return training(request)  # type: ignore[arg-type]

    monkeypatch.setattr(runs, "train", diverging)
    assert reproduce("scam", "table7") == 0
    text = (tmp_path / "out" / "scam-smoke" / "table7.md").read_text()
    assert "Not run (ResNet module): the loss is not finite" in text
    assert "98.06" in text


@pytest.mark.parametrize("paper", ["scam", "daffnet", "amnet"])
def test_whole_paper_is_drawn(
    paper: str, reproduce: Reproduce, training: FakeTraining, tmp_path: Path
) -> None:
    from wbc_jax.reproduce.registry import EXHIBITS

    keys = [e.key for e in EXHIBITS[paper] if e.kind != "grad_cam"]
    assert reproduce(paper, *keys) == 0
    folder = tmp_path / "out" / f"{paper}-smoke"
    for exhibit in EXHIBITS[paper]:
        if exhibit.kind != "grad_cam":
            text = (folder / f"{exhibit.key}.md").read_text()
            assert text.count("\n") > 4
            assert all((folder / name).is_file() for name in _linked(text))


def _linked(text: str) -> list[str]:
    import re

    return re.findall(r"\]\(([^)]+\.(?:png|csv))\)", text)


def test_list_shows_runs_and_runs_nothing(
    reproduce: Reproduce,
    training: FakeTraining,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert reproduce("scam", "--list") == 0
    text = capsys.readouterr().out
    assert "figure10" in text
    assert "not timed yet" in text
    assert training.configs == []
    assert not (tmp_path / "out").exists()
    reproduce("scam", "table7")
    capsys.readouterr()
    reproduce("scam", "table7", "--list")
    assert "none" in capsys.readouterr().out


def test_bad_options_are_refused(reproduce: Reproduce, capsys: pytest.CaptureFixture[str]) -> None:
    assert reproduce("scam", "table99") == 2
    assert reproduce("scam", "--seeds", "0") == 2
    assert reproduce("scam", stand_in="lisk") == 2
    assert "did you mean lisc" in capsys.readouterr().err

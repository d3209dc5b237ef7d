"""The command line as a user meets it: help, misspelt words, exit codes."""

from __future__ import annotations

import json

import pytest

from wbc_jax.cli import COMMANDS, main


def test_overview_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in COMMANDS)


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in ("data", "benchmark")])
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert "usage: wbc-jax" in capsys.readouterr().out


def test_misspelt_command_flag_recipe_and_value(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian"]) == 2
    assert "did you mean `wbc-jax train`" in capsys.readouterr().err
    assert main(["train", "--train.epoch", "3"]) == 2
    assert "--train.epochs" in capsys.readouterr().err
    assert main(["train", "--config", "scam:tin"]) == 2
    assert "did you mean scam:tiny" in capsys.readouterr().err
    assert main(["train", "--model.attention", "cbam"]) == 2
    assert "csam" in capsys.readouterr().err
    assert main(["train", "--config"]) == 2
    assert "--config has no value" in capsys.readouterr().err


def test_help_shows_the_value_of_the_chosen_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--config", "scam", "--help"]) == 0
    text = capsys.readouterr().out
    assert "(default: 224)" in text


def test_config_prints_json_and_every_problem(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--config", "scam:tiny", "--train.epochs", "7"]) == 0
    assert json.loads(capsys.readouterr().out)["train"]["epochs"] == 7
    assert main(["config", "--data.dataset", "pbx", "--optim.learning-rate", "-1"]) == 2
    problems = capsys.readouterr().err
    assert "data.dataset = 'pbx'" in problems
    assert "optim.learning_rate = -1.0" in problems


def test_list_of_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--list"]) == 0
    assert "scam:tiny" in capsys.readouterr().out


def test_bad_config_stops_before_any_data_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--train.batch-size", "0", "--data.dataset", "nothing"]) == 2
    text = capsys.readouterr().err
    assert "2 problems" in text

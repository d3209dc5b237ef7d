"""Options parsed without tyro, and by tyro, come out alike."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import pytest

from wbc_jax.bench.arguments import parse_options, run_from_command_line
from wbc_jax.commands.benchmark import BENCHMARKS
from wbc_jax.errors import UsageError

LINES = {
    "step": ["--models", "resnet18", "scam", "--mode", "infer", "--batch-size", "4"],
    "input": ["--images", "64", "--timed-steps", "None", "--stream-workers", "2"],
    "end-to-end": ["--models", "scam_tiny", "--repeats", "7", "--out", "a/b.csv"],
    "variants": [
        "--models",
        "scam",
        "--steps-per-call",
        "2",
        "8",
        "--batch-sizes",
        "64",
        "--forms",
        "stem=padded",
        "--repeats",
        "3",
    ],
    "startup": ["--models", "scam", "--repeats", "1", "--precision", "float32"],
    "scaling": ["--devices", "1", "4", "--models", "resnet_tiny"],
    "scaling-model": ["--devices", "8", "256", "--images-per-s", "4000", "--device", "H100"],
    "memory": ["--images", "10", "20", "--source-px", "50"],
    "levers": ["--levers", "dense", "max_pool", "--models", "resnet50", "--repeats", "6"],
    "frozen": ["--model", "daffnet_tiny", "--batch-size", "2"],
    "probe": ["--models", "scam", "--heads", "6", "--views", "1"],
    "predict": ["--source", "run", "--paths", "a", "b", "--batch-size", "8"],
    "time-to-accuracy": ["--config", "scam:tiny", "--target-percent", "95", "--seed", "3", "--out", "x.csv"],
    "compare": ["--torch-compile", "off", "--precision", "float32", "--image-size-px", "64"],
}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_both_parsers_agree(name: str) -> None:
    import tyro

    options, _ = BENCHMARKS[name]
    for line in ([], LINES[name]):
        assert parse_options(options, line) == tyro.cli(options, args=line)
    assert parse_options(options, []) == options()


def test_values_have_their_types() -> None:
    options = parse_options(
        BENCHMARKS["compare"][0], ["--models", "a", "b", "--out", "x.csv", "--repeats", "3"]
    )
    assert (options.models, options.out, options.repeats) == (("a", "b"), Path("x.csv"), 3)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_option_is_explained(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each flag of `--help` is followed by a sentence before its default."""
    monkeypatch.setenv("COLUMNS", "1000")
    options = BENCHMARKS[name][0]
    with pytest.raises(SystemExit) as stop:
        parse_options(options, ["--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out.partition("options:")[2]
    fields = dataclasses.fields(options)
    for field in fields:
        flag = f"--{field.name.replace('_', '-')} "
        explained = shown.partition(flag)[2].partition("\n  --")[0].partition("(default:")[0]
        assert len(explained.split()) > 3, flag
        assert explained.rstrip()[-1] in ".;", flag


def test_an_option_without_explanation_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    """What the test above relies on: a field without a docstring has an empty help."""

    @dataclass(frozen=True)
    class Bare:
        number: int = 3
        name: str = "x"
        """Explained."""

    with pytest.raises(SystemExit):
        parse_options(Bare, ["--help"])
    shown = capsys.readouterr().out
    assert "--number NUMBER\n" in shown
    assert "Explained. (default: x)" in shown


@pytest.mark.parametrize("line", [["--repeats", "x"], ["--mode", "training"], ["--model", "scam"]])
def test_wrong_options_end_with_2(line: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        parse_options(BENCHMARKS["compare"][0], line)
    assert stop.value.code == 2


def test_errors_for_users_are_printed_without_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def run(options: object) -> int:
        raise UsageError("no such thing", remedy="another one")

    assert run_from_command_line(BENCHMARKS["step"][0], run, []) == 2
    assert "remedy: another one" in capsys.readouterr().err


@pytest.mark.parametrize("name", [n for n, (kind, _) in BENCHMARKS.items() if hasattr(kind, "image_size_px")])
def test_numbers_out_of_range_are_named_together(name: str) -> None:
    options, run = BENCHMARKS[name]
    with pytest.raises(UsageError, match=r"(?s)--repeats 0.*--image-size-px -1"):
        run(options(repeats=0, image_size_px=-1))

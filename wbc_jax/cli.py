"""`wbc-jax …`: the only place that parses arguments; each subcommand is a function in `wbc_jax.commands`.

Imports happen inside the subcommands, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import difflib
import gc
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

from wbc_jax import __version__
from wbc_jax.errors import EXIT_OK, EXIT_SIGINT, UsageError, WbcError
from wbc_jax.runtime.allocator import keep_freed_memory

T = TypeVar("T")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one subcommand and returns its exit code; `wbc_jax.errors` names them."""
    if argv is None:  # a process of its own
        keep_freed_memory()
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if not arguments or arguments[0] in ("-h", "--help", "help"):
            print(_overview())
            return EXIT_OK
        if arguments[0] in ("-V", "--version"):
            print(f"wbc_jax {__version__}")
            return EXIT_OK
        command = _command(arguments[0])
        # Tracing a network makes many objects that live on; looking for garbage among them so often is in vain.
        gc.set_threshold(100_000, 20, 20)
        return command.run(arguments[1:])
    except WbcError as error:
        print(f"wbc-jax: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("wbc-jax: interrupted", file=sys.stderr)
        return EXIT_SIGINT
    except BrokenPipeError:
        sys.stderr.close()
        return EXIT_OK
    except SystemExit as stop:  # the argument parser has already printed its message
        return stop.code if isinstance(stop.code, int) else 2


@dataclass(frozen=True)
class _Command:
    """A subcommand: what it is for, and the function that runs it."""

    title: str
    run: Callable[[list[str]], int]


def _command(name: str) -> _Command:
    if name in COMMANDS:
        return COMMANDS[name]
    close = difflib.get_close_matches(name, COMMANDS, n=1)
    raise UsageError(
        f"no command {name!r}",
        expected=f"one of {', '.join(COMMANDS)}",
        remedy=f"did you mean `wbc-jax {close[0]}`?" if close else "see `wbc-jax --help`",
    )


def _overview() -> str:
    rows = "\n".join(f"  {name:<12} {command.title}" for name, command in COMMANDS.items())
    return (
        "usage: wbc-jax COMMAND [options]\n\n"
        "White blood cell classification in JAX: train, evaluate, apply, explain and export.\n\n"
        f"commands:\n{rows}\n\n"
        "`wbc-jax COMMAND --help` shows every option with its unit and value.\n"
        "First time here? `wbc-jax train` trains on the embedded data set in a few minutes."
    )


def _parse(cls: type[T], command: str, arguments: list[str]) -> T:
    import tyro

    return tyro.cli(cls, prog=f"wbc-jax {command}", args=arguments, compact_help=False)


def _positional(hint: Any) -> Any:
    import tyro

    return tyro.conf.Positional[hint]


def _take_option(arguments: list[str], flag: str) -> tuple[str | None, list[str]]:
    """Splits `--flag VALUE` off, wherever it stands."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(flag, dest="value", default=None)
    try:
        known, rest = parser.parse_known_args(arguments)
    except SystemExit:
        raise UsageError(f"{flag} has no value", expected="a name", where=flag) from None
    return known.value, rest


def _recipe(name: str) -> Any:
    """A recipe by name, or the config.json of an earlier run."""
    from wbc_jax.config_json import from_json
    from wbc_jax.configs import get_recipe

    path = Path(name)
    if path.suffix == ".json":
        if not path.is_file():
            raise UsageError(f"no file {name}", expected="a config.json of an earlier run", where="--config")
        return from_json(path.read_text(), where=name)
    return get_recipe(name)


def _settings(command: str, recipe: Any, arguments: list[str], extra: list[tuple[str, Any, Any]]) -> Any:
    """Parses `--data.…` and friends on top of a recipe, beside the command's own options."""
    import dataclasses

    import tyro

    from wbc_jax.config import Config

    fields = [(name, hint, field(default=default)) for name, hint, default in extra]
    fields.append(("settings", Annotated[Config, tyro.conf.arg(name="")], field(default=recipe)))
    return _parse(dataclasses.make_dataclass("Options", fields, frozen=True), command, arguments)


def _train(arguments: list[str]) -> int:
    """Train a recipe; the run directory holds everything it made."""
    from wbc_jax.runtime.compile_cache import silence_loader_messages

    silence_loader_messages()  # before anything imports jax
    from wbc_jax.commands.train import RunRequest, train
    from wbc_jax.runtime.startup import process_age_s

    name, rest = _take_option(arguments, "--config")
    folder, _ = _take_option([a for a in rest if a not in ("-h", "--help")], "--run-dir")
    saved = Path(folder) / "config.json" if folder is not None else None
    resuming = saved is not None and saved.is_file()
    recipe = _recipe(str(saved) if resuming and name is None else name or "quickstart")
    hint = Annotated[
        Path | None, _doc("Run directory: made new, or resumed when unfinished. Default: runs/…")
    ]
    options = _settings("train [--config NAME]", recipe, rest, [("run_dir", hint, None)])
    request = RunRequest(
        config=options.settings,
        recipe=name or "quickstart",
        run_dir=options.run_dir,
        command=("train", *arguments),
        age_s=process_age_s(),
    )
    return train(request)


def _config(arguments: list[str]) -> int:
    """Print the resolved config and every problem in it."""
    from wbc_jax.commands.config import list_recipes, show_config

    if "--list" in arguments:
        return list_recipes()
    name, rest = _take_option(arguments, "--config")
    options = _settings("config [--config NAME | --list]", _recipe(name or "quickstart"), rest, [])
    return show_config(options.settings)


def _doc(text: str) -> Any:
    import tyro

    return tyro.conf.arg(help=text)


def _with_options(
    command: str, arguments: list[str], options: type[Any], positionals: list[tuple[str, Any, str]]
) -> Any:
    """Parses positional arguments and the fields of an options dataclass, unprefixed."""
    import dataclasses

    import tyro

    fields: list[Any] = [(name, Annotated[_positional(hint), _doc(text)]) for name, hint, text in positionals]
    fields.append(("options", Annotated[options, tyro.conf.arg(name="")]))
    return _parse(dataclasses.make_dataclass("Arguments", fields, frozen=True), command, arguments)


_RUN = ("run_dir", Path, "Directory of a trained run.")
_PATHS = ("paths", tuple[Path, ...], "Image files, or folders that are searched for images.")


def _evaluate(arguments: list[str]) -> int:
    """Score a run on its test set, or on another data set."""
    from wbc_jax.commands.evaluate import EvaluateOptions, evaluate

    parsed = _with_options("evaluate", arguments, EvaluateOptions, [_RUN])
    return evaluate(parsed.run_dir, parsed.options)


def _predict(arguments: list[str]) -> int:
    """Classify images with a run or an exported model; writes CSV or JSON."""
    from wbc_jax.commands.predict import PredictOptions, predict

    source = ("source", Path, "Directory of a trained run, or an exported .stablehlo file.")
    parsed = _with_options("predict", arguments, PredictOptions, [source, _PATHS])
    return predict(parsed.source, parsed.paths, parsed.options)


def _explain(arguments: list[str]) -> int:
    """Show where the network looked: Grad-CAM overlays."""
    from wbc_jax.commands.explain import ExplainOptions, explain

    parsed = _with_options("explain", arguments, ExplainOptions, [_RUN, _PATHS])
    return explain(parsed.run_dir, parsed.paths, parsed.options)


def _export(arguments: list[str]) -> int:
    """Write a run as StableHLO, safetensors or a torch state dict."""
    from wbc_jax.commands.export import ExportOptions, export

    parsed = _with_options("export", arguments, ExportOptions, [_RUN])
    return export(parsed.run_dir, parsed.options)


def _probe(arguments: list[str]) -> int:
    """Train a sweep of linear heads on a network's features; start weights for fine-tuning."""
    import tyro

    from wbc_jax.commands.probe import ProbeOptions, probe

    name, rest = _take_option(arguments, "--config")
    run_dir = Path(rest.pop(0)) if rest and not rest[0].startswith("-") else None
    if (name is None) == (run_dir is None) and not {"-h", "--help"} & set(rest):
        raise UsageError(
            "nothing to take features from" if name is None else "both a run and a recipe",
            expected="wbc-jax probe RUN_DIR [options], or wbc-jax probe --config NAME --model.pretrained FILE",
        )
    recipe = _recipe(str(run_dir / "config.json") if run_dir is not None else name or "quickstart")
    hint = Annotated[ProbeOptions, tyro.conf.arg(name="")]
    extra = [("probe", hint, ProbeOptions())]
    options = _settings("probe {RUN_DIR | --config NAME}", recipe, rest, extra)
    return probe(options.settings, run_dir, options.probe)


def _compare_runs(arguments: list[str]) -> int:
    """Compare two runs image by image: McNemar's test, paired bootstrap."""
    from wbc_jax.commands.compare_runs import CompareRunsOptions, compare_runs

    runs = [
        (name, Path, "Run directory, or a predictions file with true classes.") for name in ("run_a", "run_b")
    ]
    parsed = _with_options("compare-runs", arguments, CompareRunsOptions, runs)
    return compare_runs(parsed.run_a, parsed.run_b, parsed.options)


def _reproduce(arguments: list[str]) -> int:
    """Make a paper's tables and figures: ours beside the published numbers."""
    from wbc_jax.runtime.compile_cache import silence_loader_messages

    silence_loader_messages()  # before anything imports jax
    from wbc_jax.reproduce.command import ReproduceOptions, reproduce

    paper = ("paper", str, "scam, daffnet or amnet.")
    keys = ("exhibits", tuple[str, ...], "Tables and figures, such as table4 figure6; none: all.")
    parsed = _with_options("reproduce", arguments, ReproduceOptions, [paper, keys])
    return reproduce(parsed.paper, parsed.exhibits, parsed.options)


def _convert(arguments: list[str]) -> int:
    """Convert torchvision weights to Flax, and back."""
    from wbc_jax.commands.convert import ConvertOptions, convert

    report = convert(_parse(ConvertOptions, "convert", arguments))
    print(report)
    return EXIT_OK


def _data(arguments: list[str]) -> int:
    """List, describe, prepare and verify data sets."""
    from wbc_jax.commands import data

    actions = ("list", "info", "prepare", "verify")
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"usage: wbc-jax data {{{','.join(actions)}}} [NAME] [options]")
        return EXIT_OK
    action = arguments[0]
    # `--data.raw-dir`, as `train` has it, is the same flag here.
    rest = ["--" + a.removeprefix("--data.") if a.startswith("--data.") else a for a in arguments[1:]]
    if action == "list":
        return data.list_datasets()
    if action not in actions:
        close = difflib.get_close_matches(action, actions, n=1)
        raise UsageError(
            f"no action {action!r}",
            expected=f"one of {', '.join(actions)}",
            where="wbc-jax data",
            remedy=f"did you mean {close[0]}?" if close else "",
        )
    name = ("name", str, "Data set; `wbc-jax data list` shows all.")
    parsed = _with_options(f"data {action}", rest, data.DataOptions, [name])
    run = {"info": data.info, "prepare": data.prepare, "verify": data.verify}[action]
    return run(parsed.name, parsed.options)


def _benchmark(arguments: list[str]) -> int:
    """Measure steps, input and the ratio to PyTorch twins; one CSV schema."""
    from wbc_jax.commands.benchmark import BENCHMARKS

    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"usage: wbc-jax benchmark {{{','.join(BENCHMARKS)}}} [options]")
        return EXIT_OK
    if arguments[0] not in BENCHMARKS:
        raise UsageError(
            f"no benchmark {arguments[0]!r}",
            expected=f"one of {', '.join(BENCHMARKS)}",
            where="wbc-jax benchmark",
        )
    options, run = BENCHMARKS[arguments[0]]
    return run(_parse(options, f"benchmark {arguments[0]}", arguments[1:]))


COMMANDS: dict[str, _Command] = {
    name: _Command(title=(run.__doc__ or "").strip(), run=run)
    for name, run in (
        ("data", _data),
        ("config", _config),
        ("train", _train),
        ("evaluate", _evaluate),
        ("predict", _predict),
        ("explain", _explain),
        ("probe", _probe),
        ("compare-runs", _compare_runs),
        ("reproduce", _reproduce),
        ("export", _export),
        ("convert", _convert),
        ("benchmark", _benchmark),
    )
}

if __name__ == "__main__":
    sys.exit(main())

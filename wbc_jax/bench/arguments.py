"""Options of a benchmark from the command line with the standard library alone, for bare accelerator images.

`wbc-jax benchmark …` parses the same dataclasses with tyro; flags and values are spelt alike.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import itertools
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from wbc_jax.errors import EXIT_SIGINT, WbcError
from wbc_jax.runtime.allocator import keep_freed_memory

T = TypeVar("T")


def run_from_command_line(
    options: type[T], run: Callable[[T], int], argv: Sequence[str] | None = None
) -> int:
    """Parses options, runs, prints an error that a user can act on; returns the exit code."""
    if argv is None:  # a process of its own
        keep_freed_memory()
    try:
        return run(parse_options(options, argv, description=(run.__doc__ or "").partition("\n")[0]))
    except WbcError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_SIGINT


def parse_options(options: type[T], argv: Sequence[str] | None = None, *, description: str = "") -> T:
    """Fields of a dataclass as flags: `image_size_px: int` is `--image-size-px N`.

    Understood are str, int, float, Path, Literal, tuples of any length of these, and `X | None`, whose flag also
    takes `None`.
    """
    parser = argparse.ArgumentParser(
        description=description, allow_abbrev=False, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    hints, texts = get_type_hints(options), _field_docs(options)
    for field in dataclasses.fields(options):  # pyright: ignore[reportArgumentType]
        several, convert, choices = _kind(hints[field.name])
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            dest=field.name,
            default=field.default,
            type=convert,
            choices=choices,
            nargs="+" if several else None,
            metavar=None if choices else field.name.upper(),
            help=texts.get(field.name, "").replace("%", "%%"),
        )
    values = vars(parser.parse_args(argv))
    return options(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})


def _kind(hint: Any) -> tuple[bool, Callable[[str], Any], tuple[Any, ...] | None]:
    """(several values, converter of one, choices)."""
    if get_origin(hint) is tuple:
        return True, *_kind(get_args(hint)[0])[1:]
    if get_origin(hint) in (Union, UnionType):
        (inner,) = (arg for arg in get_args(hint) if arg is not NoneType)
        several, convert, choices = _kind(inner)
        return several, _or_none(convert), choices
    if get_origin(hint) is Literal:
        return False, str, get_args(hint)
    if hint in (str, int, float, Path):
        return False, hint, None
    raise TypeError(f"no flag for a field of type {hint}")


def _or_none(convert: Callable[[str], Any]) -> Callable[[str], Any]:
    def converted(text: str) -> Any:
        return None if text == "None" else convert(text)

    converted.__name__ = getattr(convert, "__name__", "value")  # argparse names it in its error
    return converted


def _field_docs(options: type[Any]) -> dict[str, str]:
    """The string below each field, of base classes too: what tyro shows as help."""
    docs: dict[str, str] = {}
    for cls in reversed(options.__mro__[:-1]):
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
        body = definition.body if isinstance(definition, ast.ClassDef) else []
        for field, text in itertools.pairwise(body):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
            ):
                docs[field.target.id] = " ".join(str(text.value.value).split())
    return docs

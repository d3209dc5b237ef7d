"""A network as one portable program (jax.export): uint8 images in, probabilities out, weights and preprocessing inside.

The program takes any number of images. It answers with class probabilities `(B, K)`; of a network that predicts
morphology, with a pair of these and the attribute probabilities `(B, 31)`. It asks for float32 products at full
precision: left at the backend's default, the same file would answer differently on a TPU (bfloat16 products) than on
a CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export

from wbc_jax.catalog import ATTRIBUTE_NAMES, attribute_facts
from wbc_jax.errors import DataError, UsageError
from wbc_jax.export.card import read_card
from wbc_jax.models.compiler import jit
from wbc_jax.train.steps import Prediction, PredictStep

SUFFIX = ".stablehlo"
PLATFORMS = ("cpu", "cuda", "tpu")


@dataclass(frozen=True, kw_only=True)
class StableHloModel:
    """An exported network, read back.

    Attributes:
        class_names: the K classes.
        framing: how images were made square for training.
        size_px: side S of the input, px.
        platforms: where the program runs.
        card: all that the card says.
        call: uint8 `(B, S, S, 3)` -> what the network says of them; compiled once for each B.
    """

    class_names: tuple[str, ...]
    framing: str
    size_px: int
    platforms: tuple[str, ...]
    card: dict[str, Any]
    call: Callable[[Any], Prediction]


def write_stablehlo(
    path: Path,
    predict: PredictStep,
    variables: Any,
    size_px: int,
    platforms: tuple[str, ...] = PLATFORMS,
) -> dict[str, str]:
    """Writes the program to `path`.

    Args:
        path: file to write.
        predict: pure, `(variables, uint8 (B, S, S, 3)) -> Prediction`.
        variables: weights that become part of the program.
        size_px: S.
        platforms: where it should run.

    Returns:
        The platforms that had to be left out, with the reason; empty when all of them lower.

    Raises:
        UsageError: it lowers for none of the platforms.
    """
    variables = jax.tree.map(jnp.asarray, variables)

    @jax.jit
    def program(images: jax.Array) -> Any:
        said = predict(variables, images)  # its own type would have to be known to whoever reads the program
        return said.probabilities if said.attribute_probabilities is None else tuple(said)

    images = jax.ShapeDtypeStruct(jax_export.symbolic_shape(f"b, {size_px}, {size_px}, 3"), jnp.uint8)

    def lower(names: tuple[str, ...]) -> jax_export.Exported:
        with jax.default_matmul_precision("highest"):
            return jax_export.export(program, platforms=names)(images)

    left_out: dict[str, str] = {}
    try:
        exported = lower(platforms)
    except Exception as error:  # lowering rules raise anything; which platform is at fault shows one by one
        left_out = {name: problem for name in platforms if (problem := _problem(lower, name)) is not None}
        kept = tuple(name for name in platforms if name not in left_out)
        if not kept or not left_out:
            raise UsageError(
                f"the network has no StableHLO form: {error}", where=", ".join(platforms)
            ) from error
        exported = lower(kept)
    path.write_bytes(exported.serialize())
    return left_out


def _problem(lower: Callable[[tuple[str, ...]], Any], platform: str) -> str | None:
    try:
        lower((platform,))
    except Exception as error:
        return str(error).splitlines()[0] if str(error) else type(error).__name__
    return None


def read_program(path: Path) -> jax_export.Exported:
    """The program in a file; DataError when it is damaged, of another version, or of another form."""
    try:
        exported = jax_export.deserialize(bytearray(path.read_bytes()))
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", where=str(path)) from error
    except Exception as error:  # the parser of foreign bytes raises anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"not a program that this version of jax can read: {reason}",
            expected="a file written by `wbc-jax export --format stablehlo`",
            where=str(path),
            remedy="export the run again, or use a newer jax",
        ) from error
    shapes = [(len(aval.shape), np.dtype(aval.dtype)) for aval in exported.in_avals]
    if shapes != [(4, np.dtype(np.uint8))] or len(exported.out_avals) not in (1, 2):
        raise DataError(
            f"a program from {', '.join(map(str, exported.in_avals))}",
            expected="one from uint8 (B, S, S, 3) to probabilities",
            where=str(path),
        )
    return exported


def answer(outputs: Any) -> Prediction:
    """What a program returned, under its names."""
    probabilities, *attributes = jax.tree.leaves(outputs)
    return Prediction(probabilities, attributes[0] if attributes else None)


def load_stablehlo(path: Path) -> StableHloModel:
    """An exported network with its card.

    Raises:
        DataError: file or card are missing, damaged or of another form.
        UsageError: it was not exported for the platform in use.
    """
    card = read_card(path)
    exported = read_program(path)
    try:
        class_names = tuple(card["class_names"])
        preprocessing = card["preprocessing"]
        framing, size_px = preprocessing["framing"], int(preprocessing["store_size_px"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"the card lacks {error}", where=str(path)) from error
    if len(exported.out_avals) == 2 and card.get("attributes") != attribute_facts():
        raise DataError(
            "the program predicts other attributes than this version knows",
            expected=", ".join(ATTRIBUTE_NAMES),
            where=str(path),
            remedy="export the run again with this version",
        )
    platform = jax_export.default_export_platform()
    if platform not in exported.platforms:
        raise UsageError(
            f"the program was exported for {', '.join(exported.platforms)}, and this machine uses {platform}",
            where=str(path),
            remedy=f"export with --platforms {platform}",
        )
    program = jit(exported.call)
    return StableHloModel(
        class_names=class_names,
        framing=framing,
        size_px=size_px,
        platforms=tuple(exported.platforms),
        card=card,
        call=lambda images: answer(program(images)),
    )

"""Programs in files: damaged and foreign ones are refused, platforms that do not lower are left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wbc_jax.errors import DataError, UsageError
from wbc_jax.export.card import card_path, read_card, write_card
from wbc_jax.export.stablehlo import load_stablehlo, read_program, write_stablehlo
from wbc_jax.train.steps import Prediction


def mean_colour(variables: Any, images: jax.Array) -> Prediction:
    return Prediction(images.astype(jnp.float32).mean(axis=(1, 2)) @ variables["w"], None)


WEIGHTS = {"w": np.arange(6, dtype=np.float32).reshape(3, 2)}


def test_a_program_carries_its_weights(tmp_path: Path) -> None:
    path = tmp_path / "x.stablehlo"
    assert write_stablehlo(path, mean_colour, WEIGHTS, 4) == {}
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), dtype=np.uint8)
    expected = images.astype(np.float64).mean(axis=(1, 2)) @ WEIGHTS["w"]
    np.testing.assert_allclose(read_program(path).call(images), expected, rtol=1e-5)


def only_on_cpu(variables: Any, images: jax.Array) -> Prediction:
    """A Schur decomposition has no lowering elsewhere."""
    colours = mean_colour(variables, images).probabilities
    triangular, _ = jax.scipy.linalg.schur(colours.T @ colours)
    return Prediction(colours @ triangular, None)


def test_platforms_that_do_not_lower_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "x.stablehlo"
    left_out = write_stablehlo(path, only_on_cpu, WEIGHTS, 4, ("cpu", "tpu"))
    assert list(left_out) == ["tpu"]
    assert "schur" in left_out["tpu"]
    assert read_program(path).platforms == ("cpu",)


def test_a_network_without_a_portable_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no StableHLO form"):
        write_stablehlo(
            tmp_path / "x", lambda v, x: Prediction(jnp.zeros(int(x.shape[0])), None), WEIGHTS, 4
        )  # needs a number
    with pytest.raises(UsageError, match="no StableHLO form"):
        write_stablehlo(tmp_path / "x", only_on_cpu, WEIGHTS, 4, ("tpu",))


@pytest.mark.parametrize("content", [b"", b"no program", b"\x00" * 1000])
def test_foreign_bytes_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.stablehlo"
    path.write_bytes(content)
    with pytest.raises(DataError, match="not a program"):
        read_program(path)


def test_a_program_of_another_form_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.stablehlo"
    shape = jax.ShapeDtypeStruct((2, 3), jnp.float32)
    path.write_bytes(jax.export.export(jax.jit(lambda x: x * 2))(shape).serialize())
    with pytest.raises(DataError, match=r"expected: one from uint8 \(B, S, S, 3\)"):
        read_program(path)


def test_a_program_for_another_platform_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.stablehlo"
    write_stablehlo(path, mean_colour, WEIGHTS, 4, ("tpu",))
    card = {"class_names": ["a", "b"], "preprocessing": {"framing": "pad", "store_size_px": 4}}
    write_card(path, card)
    with pytest.raises(UsageError, match="exported for tpu, and this machine uses cpu"):
        load_stablehlo(path)


def test_the_card_vouches_for_its_file(tmp_path: Path) -> None:
    path = tmp_path / "x.stablehlo"
    path.write_bytes(b"content")
    write_card(path, {"class_names": ["a"]})
    assert read_card(path)["class_names"] == ["a"]
    path.write_bytes(b"contend")
    with pytest.raises(DataError, match="not the one that its card describes"):
        read_card(path)
    card_path(path).write_text("{}")
    with pytest.raises(DataError, match="not the card of an export"):
        read_card(path)

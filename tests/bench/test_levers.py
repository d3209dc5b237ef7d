"""The lever benchmark on tiny work: every row compares the two forms it names."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import jax
import pytest

from wbc_jax.bench import lever_operations
from wbc_jax.bench.lever_operations import OPERATIONS, Operation
from wbc_jax.bench.levers import LeverOptions, run_levers
from wbc_jax.errors import UsageError
from wbc_jax.models.layers import max_pool
from wbc_jax.models.lowerings import WINNERS


def test_operations_and_networks_get_a_row_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = Operation("max-pool 8^2 x 4", (8, 8, 4), (), max_pool)
    monkeypatch.setattr(lever_operations, "OPERATIONS", {"max_pool": (tiny,)})
    out = tmp_path / "levers.csv"
    options = LeverOptions(
        levers=("max_pool",), models=("resnet_tiny",), batch_size=2, image_size_px=32,
        warmup_steps=0, timed_steps=1, repeats=1, out=out,
    )  # fmt: skip
    assert run_levers(options) == 0
    with out.open(newline="") as file:
        operation, network = csv.DictReader(file)
    again = replace(options, models=())
    assert run_levers(again) == 0
    assert len(out.read_text().splitlines()) == 4
    assert (operation["subject"], network["subject"]) == ("max-pool 8^2 x 4", "resnet_tiny training step")
    for row in (operation, network):
        assert row["lever"] == "max_pool=parity"
        ratio = float(row["without_ms"]) / float(row["with_ms"])
        assert float(row["ratio"]) == pytest.approx(ratio, rel=1e-2)


def test_levers_of_evaluation_are_measured_in_inference(tmp_path: Path) -> None:
    out = tmp_path / "levers.csv"
    options = LeverOptions(
        levers=("growth",), models=("densenet_tiny",), mode="infer", batch_size=2, image_size_px=32,
        warmup_steps=0, timed_steps=1, repeats=1, out=out,
    )  # fmt: skip
    assert run_levers(options) == 0
    with out.open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["subject"], row["lever"]) == ("densenet_tiny inference step", "growth=in_place")
    for nothing in (replace(options, mode="train"), replace(options, models=())):
        with pytest.raises(UsageError, match="nothing to measure of growth"):
            run_levers(nothing)


def test_every_winner_on_a_cpu_has_operations_that_trace() -> None:
    for kind in {kind for backend, kind in WINNERS if backend == "cpu"} - {"growth"}:
        for operation in OPERATIONS[kind]:
            shapes = ((2, *operation.map_shape), *operation.weight_shapes)
            result = jax.eval_shape(operation.apply, *(jax.ShapeDtypeStruct(s, "float32") for s in shapes))
            assert result.ndim == 4


def test_unknown_levers_are_refused() -> None:
    with pytest.raises(UsageError, match="no lever poolwise"):
        run_levers(LeverOptions(levers=("poolwise",)))

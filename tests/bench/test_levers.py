"""The lever benchmark on tiny work: every row compares the two forms it names."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from wbc_jax.bench import lever_operations
from wbc_jax.bench.lever_operations import OPERATIONS, Operation, OperationSubject
from wbc_jax.bench.levers import TAKEN_BEFORE, LeverOptions, chosen_levers, run_levers
from wbc_jax.bench.result_file import append_values
from wbc_jax.errors import UsageError
from wbc_jax.models.layers import convolve, max_pool
from wbc_jax.models.lowerings import FORMS, WINNERS, Form, forms

QUICK: dict[str, Any] = {
    "batch_size": 2,
    "image_size_px": 32,
    "warmup_steps": 0,
    "timed_steps": 1,
    "repeats": 2,
}


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is compiled, as text, in order."""
    seen: list[str] = []
    compiles: Callable[..., Any] = jax.stages.Lowered.compile

    def compile_and_note(lowered: jax.stages.Lowered, *args: Any, **kwargs: Any) -> Any:
        seen.append(lowered.as_text())
        return compiles(lowered, *args, **kwargs)

    monkeypatch.setattr(jax.stages.Lowered, "compile", compile_and_note)
    return seen


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_operations_and_networks_get_a_row_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, programs: list[str]
) -> None:
    tiny = Operation("max-pool 8^2 x 4", (8, 8, 4), (), max_pool)
    monkeypatch.setattr(lever_operations, "OPERATIONS", {"max_pool": (tiny,)})
    out = tmp_path / "levers.csv"
    # Among the tiny networks it is DenseNet's that pools.
    options = LeverOptions(levers=("max_pool",), models=("densenet_tiny",), out=out, **QUICK)
    assert run_levers(options) == 0
    operation, network = read(out)
    without, chosen, whole_without, whole = programs[-4:]
    assert without != chosen
    assert whole_without != whole
    again = replace(options, models=())
    assert run_levers(again) == 0
    assert len(out.read_text().splitlines()) == 4
    assert (operation["subject"], network["subject"]) == ("max-pool 8^2 x 4", "densenet_tiny training step")
    for row in (operation, network):
        assert (row["lever"], row["precision"]) == ("max_pool=parity", "float32")
        ratio = float(row["without_ms"]) / float(row["with_ms"])
        assert float(row["ratio"]) == pytest.approx(ratio, rel=1e-2)
        assert float(row["ratio_iqr"]) > 0


def test_levers_of_evaluation_are_measured_in_inference(tmp_path: Path, programs: list[str]) -> None:
    out = tmp_path / "levers.csv"
    options = LeverOptions(levers=("growth",), models=("densenet_tiny",), mode="infer", out=out, **QUICK)
    assert run_levers(options) == 0
    (row,) = read(out)
    assert (row["subject"], row["lever"]) == ("densenet_tiny inference step", "growth=in_place")
    assert programs[-2] != programs[-1]
    for nothing in (replace(options, mode="train"), replace(options, models=())):
        with pytest.raises(UsageError, match=r"(?s)nothing to measure of growth.*--mode infer"):
            run_levers(nothing)


def test_every_winner_on_a_cpu_has_operations_that_it_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "device_count", lambda: 1)  # for more, no library is called
    # The form of dense convolutions is an option of the compiler.
    for kind in {kind for backend, kind in WINNERS if backend == "cpu"} - {"growth", "dense"}:
        for operation in OPERATIONS[kind]:
            shapes = ((8, *operation.map_shape), *operation.weight_shapes)
            args = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]

            texts = []
            for form in ("native", WINNERS["cpu", kind]):

                def both(*args: jax.Array, apply: Callable[..., jax.Array] = operation.apply) -> Any:
                    y, pull = jax.vjp(apply, *args)
                    return y, pull(y)

                among: dict[str, Form] = {TAKEN_BEFORE[kind]: "native"} if kind in TAKEN_BEFORE else {}
                with forms(
                    **{**among, kind: form}
                ):  # jax keeps the trace of a function: each form has its own
                    texts.append(str(jax.make_jaxpr(both)(*args)))
            assert texts[0] != texts[1], (kind, operation.name)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_operations_have_the_precision_that_was_asked_for(dtype: Any, programs: list[str]) -> None:
    name = "bf16" if dtype == jnp.bfloat16 else "f32"
    norm = replace(OPERATIONS["channel_sums"][0], map_shape=(8, 8, 64))
    for operation in (Operation("pool", (8, 8, 4), (), max_pool), norm):
        OperationSubject(operation, 2, dtype).run(1)
        side, channels = operation.map_shape[1:]
        assert f"tensor<2x{side}x{side}x{channels}x{name}>" in programs[-1].partition("->")[0]
    assert "tensor<64xf32>" in programs[-1].partition("->")[0]


def test_a_form_that_changes_nothing_is_said_and_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A dense convolution that covers less than its map has no other form for large kernels."""
    small = Operation("3x3", (8, 8, 16), ((3, 3, 16, 16),), lambda x, kernel: convolve(x, kernel, padding=1))
    monkeypatch.setattr(lever_operations, "OPERATIONS", {"large_kernel": (small,)})
    out = tmp_path / "levers.csv"
    assert run_levers(LeverOptions(levers=("large_kernel=padded",), out=out, **QUICK)) == 0
    assert "large_kernel=padded changes nothing on cpu: not measured" in capsys.readouterr().out
    assert not out.exists()


def test_unknown_levers_are_refused() -> None:
    with pytest.raises(UsageError, match="no lever poolwise"):
        run_levers(LeverOptions(levers=("poolwise",)))
    with pytest.raises(UsageError, match=r"(?s)no such form: stem=dot.*native, padded, space_to_depth"):
        run_levers(LeverOptions(levers=("stem=dot",)))
    with pytest.raises(UsageError, match="dense=native: native is what"):
        run_levers(LeverOptions(levers=("dense=native",)))


def test_a_backend_without_winners_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with pytest.raises(UsageError, match=r"(?s)on gpu.*--levers pointwise=dot.*benchmark variants"):
        run_levers(LeverOptions())
    with pytest.raises(UsageError, match=r"(?s)no lever dense.*kind=form"):
        chosen_levers(LeverOptions(levers=("dense",)))
    named = LeverOptions(levers=("pointwise=dot", "grouped=merged64"))
    assert chosen_levers(named) == [("pointwise", "dot"), ("grouped", "merged64")]
    with pytest.raises(UsageError, match=r"(?s)nothing to measure of stem.*--models"):
        chosen_levers(LeverOptions(levers=("stem=padded",)))
    assert set(OPERATIONS) <= set(FORMS)


def test_rows_of_an_earlier_version_get_the_columns_added_since(tmp_path: Path) -> None:
    out = tmp_path / "levers.csv"
    columns = LeverOptions().columns()
    earlier = columns[: columns.index("timed_steps")]
    append_values(out, earlier, [dict.fromkeys(earlier, 1)])
    LeverOptions(out=out).check()
    append_values(out, columns, [dict.fromkeys(columns, 2)])
    old, new = read(out)
    assert (old["repeats"], old["timed_steps"], old["glibc_tunables"]) == ("1", "", "")
    assert set(new.values()) == {"2"}

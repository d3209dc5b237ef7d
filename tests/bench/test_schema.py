"""The CSV: the promised columns, complete rows, headers written once and foreign files refused."""

from __future__ import annotations

import csv
import dataclasses
import os
from pathlib import Path

import pytest

from wbc_jax.bench.schema import COLUMNS, Machine, Row, append_rows, check_out, describe_machine
from wbc_jax.bench.table import print_rows
from wbc_jax.errors import UsageError
from wbc_jax.models.compiler import compiler_options

PROMISED = (
    "date", "commit", "device", "backend", "model", "mode", "precision", "batch_size", "image_size_px",
    "images_per_s", "step_ms", "peer", "peer_images_per_s", "ratio", "traffic_limit_percent", "versions",
)  # fmt: skip
MACHINE = Machine(
    date="2026-01-02T03:04:05+00:00",
    commit="abc",
    device="a processor, of two kinds",
    device_detail="",
    backend="cpu",
    threads=2,
    load_average=0.1,
    xla_flags="",
    versions="jax 1; flax 2",
)
ROW = Row(
    benchmark="step",
    model="resnet50",
    mode="train",
    data_mode="synthetic-fixed",
    precision="float32",
    batch_size=8,
    image_size_px=224,
    images_per_s=1 / 3,
    step_ms=24_000.0,
    iqr_ms=0.0,
    warmup_steps=2,
    timed_steps=3,
    repeats=5,
)


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_promised_columns_are_there() -> None:
    assert set(PROMISED) <= set(COLUMNS)
    assert len(set(COLUMNS)) == len(COLUMNS)


def test_rows_are_added_below_one_header(tmp_path: Path) -> None:
    path = tmp_path / "new" / "results.csv"
    append_rows(path, MACHINE, [ROW])
    append_rows(path, MACHINE, [dataclasses.replace(ROW, model="scam", peer="torch", ratio=1.25)])
    first, second = read(path)
    assert path.read_text().count("images_per_s") == path.read_text().count("peer_images_per_s") + 1 == 2
    assert (first["device"], first["images_per_s"], first["iqr_ms"]) == (
        "a processor, of two kinds",
        "0.333333",
        "0",
    )
    assert (first["peer"], first["ratio"]) == ("", "")
    assert (second["model"], second["peer"], second["ratio"]) == ("scam", "torch", "1.25")


def test_a_file_with_other_columns_is_refused_before_measuring(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.write_text("date,model\n")
    with pytest.raises(UsageError, match="other columns"):
        check_out(path)
    with pytest.raises(UsageError, match="other columns"):
        append_rows(path, MACHINE, [ROW])
    assert path.read_text() == "date,model\n"
    with pytest.raises(UsageError, match="folder"):
        check_out(tmp_path)
    check_out(tmp_path / "absent.csv")
    check_out(None)


def test_a_file_of_an_earlier_version_gets_the_columns_added_since(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    earlier = COLUMNS[: COLUMNS.index("variant")]
    values = ["x,y" if name == "device" else "1" for name in earlier]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([earlier, values])
    check_out(path)
    append_rows(path, MACHINE, [dataclasses.replace(ROW, variant="pointwise=dot")])
    old, new = read(path)
    assert (old["device"], old["wall_s"], old["variant"]) == ("x,y", "1", "")
    assert (new["model"], new["variant"]) == ("resnet50", "pointwise=dot")
    assert list(tmp_path.iterdir()) == [path]


def test_this_machine_is_described() -> None:
    machine = describe_machine()
    assert machine.backend == "cpu"
    assert machine.device
    assert machine.threads >= 1
    assert "jax 0." in machine.versions
    assert "torch " in machine.versions
    passed = [f"{name}={value}" for name, value in compiler_options().items()]
    assert machine.xla_flags.split() == [*os.environ["XLA_FLAGS"].split(), *passed]


@pytest.mark.parametrize("count", [1, 6])
def test_the_table_shows_what_is_known_and_leaves_out_empty_columns(
    count: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    print_rows(MACHINE, [ROW] * count)
    printed = capsys.readouterr().out
    assert printed.count("resnet50") == count
    assert "24,000.0" in printed
    assert "peer" not in printed
    assert "busy" not in printed


def test_a_busy_cpu_is_pointed_out(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows(dataclasses.replace(MACHINE, load_average=1.2), [ROW])
    assert "load average 1.2" in capsys.readouterr().out

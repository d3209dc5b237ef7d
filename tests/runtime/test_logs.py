"""Rows that survive crashes and resumes; TensorBoard files that TensorBoard's own reader understands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from wbc_jax.errors import CheckpointError, DataError
from wbc_jax.runtime.logs import MetricsLog, TensorBoardLog


def test_rows_are_strict_json_lines(tmp_path: Path) -> None:
    with MetricsLog(tmp_path / "metrics.jsonl") as log:
        log.append({"step": np.int64(1), "loss": np.float32(0.5), "accuracy": jnp.asarray(1.0)})
        log.append({"step": 2, "loss": float("nan"), "per_class": [1.0, np.inf]})
        lines = log.path.read_text().splitlines()  # without closing: each row is on its way at once
    assert lines[0] == '{"step": 1, "loss": 0.5, "accuracy": 1.0}'
    assert json.loads(lines[1]) == {"step": 2, "loss": None, "per_class": [1.0, None]}


def test_resumed_log_equals_the_uninterrupted_one(tmp_path: Path) -> None:
    def write(log: MetricsLog, steps: range) -> None:
        for step in steps:
            log.append({"step": step, "loss": 1 / step})
            if step % 3 == 0:
                log.append({"step": step, "val.accuracy": step / 10})

    with MetricsLog(tmp_path / "whole.jsonl") as log:
        write(log, range(1, 10))
    for crash_at in (2, 5, 9):
        path = tmp_path / f"crash{crash_at}.jsonl"
        with MetricsLog(path) as log:
            write(log, range(1, crash_at + 1))
        with path.open("ab") as file:
            file.write(b'{"step": 10, "lo')  # half a line
        with MetricsLog(path) as log:
            restored = crash_at - 1
            log.rewind(restored)
            assert [row["step"] for row in log.rows()][-1] == restored
            write(log, range(restored + 1, 10))
        assert path.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_rewinding_to_nothing_empties(tmp_path: Path) -> None:
    with MetricsLog(tmp_path / "m.jsonl") as log:
        log.append({"step": 0})
        log.rewind(0)
        assert len(log.rows()) == 1
        log.rewind(None)
        assert log.rows() == []
        log.append({"step": 1})
        assert log.rows() == [{"step": 1}]


def test_row_without_step_is_refused(tmp_path: Path) -> None:
    with MetricsLog(tmp_path / "m.jsonl") as log, pytest.raises(ValueError, match="needs a step"):
        log.append({"loss": 1})


@pytest.mark.parametrize("line", ["{]", '{"loss": 1}', "[1]", '{"step": null}'])
def test_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(f'{{"step": 1}}\n{line}\n')
    with pytest.raises(DataError, match="line 2") as caught:
        MetricsLog(path)
    assert str(path) in str(caught.value)


def test_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with MetricsLog(tmp_path / "m.jsonl") as log:
        log.append({"step": 1})
        write = os.write
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:5]))
            with pytest.raises(CheckpointError, match="No space left") as caught:
                log.append({"step": 2})
        assert str(log.path) in str(caught.value)
        log.append({"step": 3})
        assert log.rows() == [{"step": 1}, {"step": 3}]


READ_BACK = """
import json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
read = EventAccumulator(sys.argv[1])
read.Reload()
print(json.dumps({tag: [[e.step, e.value] for e in read.Scalars(tag)] for tag in read.Tags()["scalars"]}))
assert "tensorflow" not in sys.modules
"""


def test_tensorboard_reads_the_scalars_and_forgets_what_was_rewound(tmp_path: Path) -> None:
    with TensorBoardLog(tmp_path) as log:
        for step in (1, 2, 3):
            log.append(
                {"step": step, "val.accuracy": np.float32(step / 4), "none": None, "nan": float("nan")}
            )
    with TensorBoardLog(tmp_path) as log:
        log.rewind(2)
        log.append({"step": 3, "val.accuracy": 0.125})
    # In a process of its own: TensorBoard's reader brings warnings of third parties.
    done = subprocess.run(
        [sys.executable, "-c", READ_BACK, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == {"val/accuracy": [[1, 0.25], [2, 0.5], [3, 0.125]]}

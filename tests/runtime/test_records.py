"""Strict JSON, provenance, devices."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from wbc_jax.errors import DataError, UsageError
from wbc_jax.runtime import provenance
from wbc_jax.runtime.devices import activation_dtype, describe_device, make_mesh
from wbc_jax.runtime.json_files import read_json, write_json
from wbc_jax.train.parallel import replicated, split_by_row


def test_json_round_trip_of_numbers_of_arrays(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": np.float32(0.5), "b": jnp.arange(2), "c": (1, None, True, "ü"), "d": tmp_path})
    assert read_json(path) == {"a": 0.5, "b": [0, 1], "c": [1, None, True, "ü"], "d": str(tmp_path)}
    assert os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"x": np.array([1.0, np.nan])}])
def test_json_refuses_what_is_no_number_and_keeps_the_old_file(tmp_path: Path, value: object) -> None:
    path = tmp_path / "a.json"
    write_json(path, [1])
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, value)
    assert read_json(path) == [1]
    assert os.listdir(tmp_path) == ["a.json"]


def test_json_refuses_objects(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="has no JSON form"):
        write_json(tmp_path / "a.json", object())


@pytest.mark.parametrize("text", ['{"a": 1, "a": 2}', "[NaN]", "[1", "", "\ufeff{}"])
def test_json_reading_is_strict(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match="strict JSON") as caught:
        read_json(path)
    assert str(path) in str(caught.value)


def test_json_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_json(tmp_path / "a.json")


def test_provenance_is_strict_json_and_names_versions(tmp_path: Path) -> None:
    record = provenance.collect_provenance()
    write_json(tmp_path / "p.json", record)
    assert record["versions"]["jax"] == jax.__version__
    assert record["device"]["backend"] == "cpu"
    assert record["command"] == sys.argv


GIT = shutil.which("git")


@pytest.mark.skipif(GIT is None, reason="git is not installed")
def test_commit_is_reported_only_for_the_packages_own_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert GIT is not None
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    git = [
        GIT,
        "-C",
        str(tmp_path),
        "-c",
        "user.name=a",
        "-c",
        "user.email=a@b",
        "-c",
        "commit.gpgsign=false",
    ]
    source = tmp_path / "package" / "provenance.py"
    source.parent.mkdir()
    source.write_text("x = 1\n")
    monkeypatch.setattr(provenance, "__file__", str(source))
    assert provenance.source_commit() == (None, None)  # no repository
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "other"], check=True)
    assert provenance.source_commit() == (None, None)  # someone else's repository
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "own"], check=True)
    head = subprocess.run(
        [*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()
    assert provenance.source_commit() == (head, False)
    source.write_text("x = 2\n")
    assert provenance.source_commit() == (head, True)


def test_mesh_has_one_auto_axis_over_the_devices_asked_for() -> None:
    assert dict(make_mesh().shape) == {"data": len(jax.devices())}
    mesh = make_mesh(2)
    assert mesh.axis_types == (AxisType.Auto,)
    assert list(mesh.devices.flat) == jax.devices()[:2]
    batch = jax.device_put(np.zeros((4, 3), np.uint8), split_by_row(mesh))
    assert [shard.data.shape for shard in batch.addressable_shards] == [(2, 3), (2, 3)]
    state = jax.device_put(np.zeros((4, 3), np.float32), replicated(mesh))
    assert [shard.data.shape for shard in state.addressable_shards] == [(4, 3), (4, 3)]


@pytest.mark.parametrize("count", [0, -1, 1000])
def test_mesh_of_devices_that_are_not_there(count: int) -> None:
    with pytest.raises(UsageError, match=f"{count} devices are asked for"):
        make_mesh(count)


def test_activation_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    assert activation_dtype("auto") == jnp.float32
    assert activation_dtype("bfloat16") == jnp.bfloat16
    assert activation_dtype("float32") == jnp.float32
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert activation_dtype("auto") == jnp.bfloat16


def test_device_description_is_plain() -> None:
    record = describe_device()
    assert json.loads(json.dumps(record)) == record
    assert record["count"] == len(jax.devices())
    assert record["memory_bytes"] > 2**28

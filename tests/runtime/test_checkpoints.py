"""Round trips, retention, the best checkpoint, devices, structures and failing disks."""

from __future__ import annotations

import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checkpoint_states import abstract, fingerprint, make_state
from jax.sharding import NamedSharding, PartitionSpec

from wbc_jax.errors import CheckpointError
from wbc_jax.runtime import named_arrays
from wbc_jax.runtime.checkpoints import Checkpoints, load_variables
from wbc_jax.runtime.devices import make_mesh
from wbc_jax.train.parallel import replicated, split_by_row


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def checkpoints(tmp_path: Path, lines: list[str]):
    with Checkpoints(tmp_path / "checkpoints", report=lines.append) as opened:
        yield opened


@pytest.mark.parametrize("ema", [False, True])
def test_state_returns_bit_equal_with_its_structure(checkpoints: Checkpoints, ema: bool) -> None:
    state = make_state(3, ema=ema)
    checkpoints.save(3, state, {"config_sha256": "ab", "best_score": np.float32(0.5), "epoch": np.int64(2)})
    restored = checkpoints.restore_latest(abstract(state))
    assert restored is not None
    back, step, meta = restored
    assert (step, meta) == (3, {"config_sha256": "ab", "best_score": 0.5, "epoch": 2})
    assert jax.tree.structure(back) == jax.tree.structure(state)
    assert fingerprint(back) == fingerprint(state)
    assert (back.ema_params is None) is not ema
    assert all(isinstance(leaf, jax.Array) and not leaf.weak_type for leaf in jax.tree.leaves(back))


def test_scalars_of_numpy_and_python_return_as_arrays(checkpoints: Checkpoints) -> None:
    state = {"step": np.int32(7), "rate": np.float32(0.25), "count": 3, "flag": np.bool_(True)}
    checkpoints.save(7, state, {})
    restored = checkpoints.restore_latest(state)
    assert restored is not None
    assert {name: np.asarray(value).item() for name, value in restored.state.items()} == {
        "step": 7,
        "rate": 0.25,
        "count": 3,
        "flag": True,
    }


def test_nothing_saved_is_none(checkpoints: Checkpoints) -> None:
    assert checkpoints.restore_latest(abstract(make_state())) is None
    assert checkpoints.restore_best(abstract(make_state())) is None
    assert checkpoints.latest_step() is None


def test_saved_state_may_be_donated_at_once(checkpoints: Checkpoints) -> None:
    state = {"x": jnp.arange(50_000, dtype=jnp.float32)}
    expected = np.arange(50_000, dtype=np.float32)
    double = jax.jit(lambda tree: jax.tree.map(lambda x: x * 2 + 1, tree), donate_argnums=0)
    checkpoints.save(1, state, {})
    state = double(state)
    checkpoints.wait()
    like = {"x": jax.ShapeDtypeStruct((50_000,), jnp.float32)}
    restored = checkpoints.restore_latest(like)
    assert restored is not None
    np.testing.assert_array_equal(restored.state["x"], expected)


def test_only_the_newest_and_the_best_are_kept(checkpoints: Checkpoints) -> None:
    for step in (1, 2, 10, 9, 100):
        if step != 9:
            checkpoints.save(step, make_state(step), {})
        else:
            checkpoints.save_best(step, make_state(step), {"score": 0.9})
    checkpoints.wait()
    names = sorted(path.name for path in checkpoints.directory.iterdir())
    assert names == ["best", "step_00000010", "step_00000100"]
    assert checkpoints.latest_step() == 100
    best = checkpoints.restore_best(abstract(make_state()))
    assert best is not None
    assert (best.step, best.meta) == (9, {"score": 0.9})
    assert fingerprint(best.state) == fingerprint(make_state(9))


def test_saving_a_step_or_the_best_again_replaces_it(checkpoints: Checkpoints) -> None:
    for seed in (1, 2):
        checkpoints.save(5, make_state(seed), {"seed": seed})
        checkpoints.save_best(seed, make_state(seed), {})
    like = abstract(make_state())
    latest, best = checkpoints.restore_latest(like), checkpoints.restore_best(like)
    assert latest is not None
    assert best is not None
    assert (latest.meta, best.step) == ({"seed": 2}, 2)
    assert fingerprint(latest.state) == fingerprint(best.state) == fingerprint(make_state(2))
    assert sorted(path.name for path in checkpoints.directory.iterdir()) == ["best", "step_00000005"]


def test_replacement_interrupted_at_any_rename_loses_nothing(tmp_path: Path, lines: list[str]) -> None:
    like = abstract(make_state())
    with Checkpoints(tmp_path / "a", report=lines.append) as saved:
        saved.save_best(1, make_state(1), {})
        saved.wait()
        shutil.copytree(saved.directory / "best", tmp_path / "old")
        saved.save_best(2, make_state(2), {})
    new = saved.directory / "best"
    for number, (has_old, has_new, expected) in enumerate(
        [(True, False, 1), (True, True, 2), (False, True, 2)]  # before, between and after the renames
    ):
        folder = tmp_path / f"case{number}"
        folder.mkdir()
        (folder / ".partial-best-1").mkdir()
        if has_old:
            shutil.copytree(tmp_path / "old", folder / "best")
        if has_new:
            shutil.copytree(new, folder / "best.new")
        params = load_variables(folder, report=lines.append)["params"]  # a reader, before anything is tidied
        assert fingerprint(params) == fingerprint(make_state(expected).params)
        with Checkpoints(folder, report=lines.append) as tidied:
            best = tidied.restore_best(like)
            assert best is not None
            assert best.step == expected
            assert [path.name for path in folder.iterdir()] == ["best"]
    assert lines == []


def test_variables_load_without_the_optimiser(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, averaged = make_state(1), make_state(2, ema=True)
    checkpoints.save(1, plain, {})
    checkpoints.wait()
    assert fingerprint(load_variables(checkpoints.directory)) == fingerprint(
        {"params": plain.params, "batch_stats": plain.batch_stats}
    )
    checkpoints.save_best(2, averaged, {})
    checkpoints.wait()
    read: list[str] = []
    original = named_arrays.read_arrays

    def spy(directory, description, names=None):
        arrays = original(directory, description, names)
        read.extend(arrays)
        return arrays

    monkeypatch.setattr(named_arrays, "read_arrays", spy)
    loaded = load_variables(checkpoints.directory)
    assert fingerprint(loaded["params"]) == fingerprint(averaged.ema_params)
    assert fingerprint(loaded["batch_stats"]) == fingerprint(averaged.ema_batch_stats)
    assert {name.split("/")[0] for name in read} == {"ema_params", "ema_batch_stats"}
    without = load_variables(checkpoints.directory, prefer_ema=False)
    assert fingerprint(without["params"]) == fingerprint(averaged.params)
    latest = load_variables(checkpoints.directory, which="latest")
    assert fingerprint(latest["params"]) == fingerprint(plain.params)


def test_variables_of_nothing_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no valid checkpoint"):
        load_variables(tmp_path / "nowhere")


def test_restores_onto_one_two_and_one_devices(tmp_path: Path) -> None:
    state = make_state(4)
    expected = fingerprint(state)
    for index, count in enumerate((1, 2, 4, 1)):
        sharding = replicated(make_mesh(count))
        with Checkpoints(tmp_path / str(index)) as checkpoints:
            checkpoints.save(4, state, {})
            restored = checkpoints.restore_latest(abstract(state, sharding))
        assert restored is not None
        state = restored.state
        assert all(leaf.sharding == sharding for leaf in jax.tree.leaves(state))
        assert fingerprint(state) == expected


def test_sharded_arrays_are_saved_whole(checkpoints: Checkpoints) -> None:
    mesh = make_mesh(4)
    values = np.arange(8 * 3, dtype=np.float32).reshape(8, 3)
    state = {"x": jax.device_put(values, split_by_row(mesh))}
    checkpoints.save(1, state, {})
    restored = checkpoints.restore_latest(abstract(state, NamedSharding(make_mesh(2), PartitionSpec("data"))))
    assert restored is not None
    np.testing.assert_array_equal(restored.state["x"], values)


def test_restored_state_may_be_donated_on_several_devices(checkpoints: Checkpoints) -> None:
    """Buffers of the devices must not share one piece of host memory, or one update would be seen four times."""
    state = {"x": np.arange(100_000, dtype=np.float32)}
    checkpoints.save(1, state, {})
    like = {"x": jax.ShapeDtypeStruct((100_000,), jnp.float32, sharding=replicated(make_mesh(4)))}
    restored = checkpoints.restore_latest(like)
    assert restored is not None
    double = jax.jit(lambda tree: jax.tree.map(lambda x: x * 2, tree), donate_argnums=0)
    result = double(restored.state)["x"]
    for shard in result.addressable_shards:
        np.testing.assert_array_equal(shard.data, state["x"] * 2)


def test_another_structure_lists_names_and_shapes(checkpoints: Checkpoints) -> None:
    checkpoints.save(1, make_state(1, ema=True), {})
    with pytest.raises(CheckpointError) as caught:
        checkpoints.restore_latest(abstract(make_state(1, width=16)))
    message = str(caught.value)
    assert (
        "params/conv0/kernel: float32[3, 3, 3, 8] in the checkpoint, float32[3, 3, 3, 16] expected" in message
    )
    assert (
        "ema_params/conv0/kernel: float32[3, 3, 3, 8] in the checkpoint, not in the program's state"
        in message
    )
    assert str(checkpoints.directory / "step_00000001") in message


def test_disk_without_room_leaves_the_state_and_the_older_checkpoint(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = make_state(1)
    checkpoints.save(1, state, {})
    checkpoints.wait()
    needed = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    usage = shutil.disk_usage(checkpoints.directory)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10))
    before = fingerprint(state)
    checkpoints.save(2, state, {})
    with pytest.raises(CheckpointError) as caught:
        checkpoints.wait()
    message = str(caught.value)
    assert f"{needed:,} bytes" in message
    assert "10 bytes are free" in message
    assert str(checkpoints.directory / "step_00000002") in message
    assert "resumes from step 1" in message
    assert fingerprint(state) == before
    monkeypatch.undo()
    checkpoints.save(3, state, {})
    checkpoints.wait()
    assert sorted(path.name for path in checkpoints.directory.iterdir()) == ["step_00000001", "step_00000003"]


def test_error_in_the_middle_of_writing_leaves_nothing_behind(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = named_arrays.write_arrays

    def break_off(directory: Path, named) -> None:
        original(directory, named)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(named_arrays, "write_arrays", break_off)
    checkpoints.save(1, make_state(1), {})
    with pytest.raises(CheckpointError, match="No space left"):
        checkpoints.save(2, make_state(2), {})  # the failure of the first is noticed before the second
    assert list(checkpoints.directory.iterdir()) == []


def test_vanished_directory_is_not_made_anew(checkpoints: Checkpoints) -> None:
    checkpoints.directory.rmdir()
    checkpoints.save(1, make_state(1), {})
    with pytest.raises(CheckpointError, match="No such file"):
        checkpoints.wait()
    assert not checkpoints.directory.exists()


def test_tolerated_failure_is_reported_and_raised_at_the_end(
    tmp_path: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    checkpoints = Checkpoints(tmp_path / "c", report=lines.append, tolerate_failures=True)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=0))
    checkpoints.save(1, make_state(1), {})
    checkpoints.save(2, make_state(2), {})
    assert len(lines) == 1
    assert "saving step 1 failed" in lines[0]
    with pytest.raises(CheckpointError, match="saving step 2 failed"):
        checkpoints.close()


def test_unusable_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="cannot use the directory"):
        Checkpoints(tmp_path / "file" / "checkpoints")


def test_nan_in_meta_is_refused_before_anything_is_written(checkpoints: Checkpoints) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        checkpoints.save(1, make_state(1), {"best_score": float("nan")})
    assert checkpoints.latest_step() is None

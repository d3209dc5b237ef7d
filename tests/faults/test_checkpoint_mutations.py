"""Every kind of damage to every file of a checkpoint: restored bit-equal, or refused by name. Never silently wrong."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from checkpoint_states import abstract, fingerprint, make_state

from wbc_jax.errors import CheckpointError
from wbc_jax.runtime import named_arrays
from wbc_jax.runtime.checkpoint_reading import DamagedCheckpointError, read_info
from wbc_jax.runtime.checkpoints import Checkpoints, load_variables

KINDS = ("flip", "flip", "flip", "truncate", "zero", "delete", "append", "swap", "empty")


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pristine") / "checkpoints"
    with Checkpoints(folder) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, make_state(step, ema=True), {"config_sha256": "ab"})
    return folder


def files_of(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def mutate(path: Path, kind: str, rng: random.Random, other: Path) -> bool:
    """Damages a file; False when the damage changes nothing (a zero block that was zero before)."""
    before = path.read_bytes()
    content = bytearray(before)
    if kind == "flip":
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    elif kind == "truncate":
        del content[rng.randrange(len(content)) :]
    elif kind == "zero":
        start = rng.randrange(len(content))
        content[start : start + 64] = bytes(len(content[start : start + 64]))
    elif kind == "append":
        content.append(rng.randrange(256))
    elif kind == "empty":
        content.clear()
    elif kind == "swap":
        path.write_bytes(other.read_bytes())
        other.write_bytes(before)
        return path.read_bytes() != before
    elif kind == "delete":
        path.unlink()
        return True
    path.write_bytes(content)
    return bytes(content) != before


def refusal_of(checkpoint: Path) -> str | None:
    """Why the checkpoint is refused; None when it is accepted."""
    try:
        read_info(checkpoint)
    except DamagedCheckpointError as error:
        return str(error)
    return None


def test_over_a_thousand_mutations_are_refused_or_harmless(pristine: Path, tmp_path: Path) -> None:
    rng = random.Random(0)
    source = pristine / "step_00000002"
    names = files_of(source)
    work = tmp_path / "step_00000002"
    shutil.copytree(source, work)
    tried = refused = 0
    for name in names:
        for kind in KINDS * 8:
            path, other = work / name, work / rng.choice([other for other in names if other != name])
            originals = [(path, path.read_bytes()), (other, other.read_bytes())]
            changed = mutate(path, kind, rng, other)
            refusal = refusal_of(work)
            if refusal is None:
                # Only white space of the manifest can change without any consequence.
                assert not changed or name == "manifest.json"
                assert read_info(work) == read_info(source)
            else:
                refused += 1
                assert changed
                assert str(work) in refusal
                assert any(named in refusal for named in ("manifest.json", name, other.name))
            for original, content in originals:
                original.write_bytes(content)
            tried += 1
    assert tried >= 1000
    assert refused > 0.9 * tried


@pytest.mark.parametrize("kind", ["flip", "truncate", "delete", "swap"])
def test_training_continues_from_the_older_checkpoint(pristine: Path, tmp_path: Path, kind: str) -> None:
    rng = random.Random(1)
    expected = {step: fingerprint(make_state(step, ema=True)) for step in (1, 2)}
    like = abstract(make_state(0, ema=True))
    names = files_of(pristine / "step_00000002")
    for name in names[:: 1 if kind == "flip" else 4]:
        folder = tmp_path / name.replace("/", "_")
        shutil.copytree(pristine, folder)
        damaged = folder / "step_00000002"
        changed = mutate(damaged / name, kind, rng, damaged / rng.choice([n for n in names if n != name]))
        lines: list[str] = []
        with Checkpoints(folder, report=lines.append) as checkpoints:
            restored = checkpoints.restore_latest(like)
            assert restored is not None
            assert fingerprint(restored.state) == expected[restored.step]
            if not lines:
                assert restored.step == 2
                assert not changed or name == "manifest.json"
                continue
            assert restored.step == 1
            assert len(lines) == 1
            assert "step_00000002" in lines[0]
            # The next save must not count the damaged one as kept, nor the start after it try it again.
            checkpoints.save(2, make_state(2, ema=True), {})
            again = checkpoints.restore_latest(like)
            assert again is not None
            assert again.step == 2
        kept = {path.name for path in folder.iterdir()}
        assert kept == {"step_00000001", "step_00000002", "damaged-step_00000002"}


def test_all_damaged_is_an_error_and_changes_nothing(pristine: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    shutil.copytree(pristine, folder)
    for step in (1, 2):
        (folder / f"step_0000000{step}" / "manifest.json").unlink()
    for _ in range(2):  # a second start must not mistake the situation for a new run
        with (
            Checkpoints(folder, report=lambda _: None) as checkpoints,
            pytest.raises(CheckpointError, match="none of the 2 checkpoints is valid"),
        ):
            checkpoints.restore_latest(abstract(make_state(0, ema=True)))


def test_exchanged_directories_are_refused(pristine: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    shutil.copytree(pristine / "step_00000002", folder / "step_00000003")
    with pytest.raises(CheckpointError, match="it holds step 2"):
        read_info(folder / "step_00000003")


def test_damaged_best_falls_back_to_the_newest_for_inference(tmp_path: Path) -> None:
    lines: list[str] = []
    with Checkpoints(tmp_path, report=lines.append) as checkpoints:
        checkpoints.save(1, make_state(1), {})
        checkpoints.save_best(2, make_state(2), {})
        stored = (tmp_path / "best" / named_arrays.VARIABLES_ITEM).rglob("*")
        array_file = max((path for path in stored if path.is_file()), key=lambda path: path.stat().st_size)
        mutate(array_file, "flip", random.Random(2), array_file)
        assert checkpoints.restore_best(abstract(make_state())) is None
    assert "best" in lines[0]
    loaded = load_variables(tmp_path, report=lines.append)
    assert fingerprint(loaded["params"]) == fingerprint(make_state(1).params)
    assert len(lines) == 2
    np.testing.assert_array_equal(loaded["params"]["head"]["bias"], make_state(1).params["head"]["bias"])

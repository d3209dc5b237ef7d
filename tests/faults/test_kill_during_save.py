"""A process killed at random moments of saving: what was committed stays, nothing half-written is ever chosen."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from wbc_jax.runtime import sealed
from wbc_jax.runtime.checkpoints import Checkpoints, load_variables

SAVER = """
import sys
import numpy as np
from wbc_jax.runtime.checkpoints import Checkpoints

def state(step):
    rng = np.random.default_rng(step)
    params = {"w": rng.normal(size=(64, 512)).astype(np.float32)}
    return {"params": params, "opt": rng.normal(size=(64, 512)), "step": np.int32(step)}

first = int(sys.argv[2])
with Checkpoints(sys.argv[1]) as checkpoints:
    print("ready", flush=True)
    for step in range(first, first + 10_000):
        checkpoints.save(step, state(step), {})
        checkpoints.save_best(step, state(step), {})  # returns when both are on the disk
        print(step, flush=True)
"""

LIMITED = """
import resource, signal, sys
import numpy as np
from wbc_jax.errors import CheckpointError
from wbc_jax.runtime.checkpoints import Checkpoints

rng = np.random.default_rng(0)
with Checkpoints(sys.argv[1]) as checkpoints:
    checkpoints.save(1, {"params": {"w": rng.normal(size=1000)}}, {})
    checkpoints.wait()
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
    checkpoints.save(2, {"params": {"w": rng.normal(size=200_000)}}, {})
    try:
        checkpoints.wait()
    except CheckpointError as error:
        print(error)
"""


def state(step: int) -> dict:
    """The same numbers as in the child."""
    rng = np.random.default_rng(step)
    params = {"w": rng.normal(size=(64, 512)).astype(np.float32)}
    return {"params": params, "opt": rng.normal(size=(64, 512)), "step": np.int32(step)}


def assert_equal(found: dict, step: int) -> None:
    expected = state(step)
    np.testing.assert_array_equal(found["params"]["w"], expected["params"]["w"])
    np.testing.assert_array_equal(found["opt"], expected["opt"])
    assert int(found["step"]) == step


def test_ten_kills_lose_nothing_committed(tmp_path: Path) -> None:
    rng = random.Random(time.time_ns())
    lines: list[str] = []
    first, printed = 1, 0
    for attempt in range(10):
        child = subprocess.Popen(
            [sys.executable, "-c", SAVER, str(tmp_path), str(first)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        # Steps as the clock, so that a slow machine gets as far; then any moment of the next one.
        early = [child.stdout.readline() for _ in range((attempt + 1) % 3)]
        time.sleep(rng.uniform(0.0, 0.2))
        child.kill()
        output, _ = child.communicate()
        printed = [printed, *(int(line) for line in [*early, *output.splitlines()])][-1]
        under_way = max(first, printed + 1)
        if printed:  # a reader that tidies nothing finds the best of the last finished step or of a later one
            assert sealed.candidates(tmp_path / "best")
            found = load_variables(tmp_path, report=lines.append)["params"]["w"]
            possible = [state(step)["params"]["w"] for step in range(printed, under_way + 1)]
            assert any(np.array_equal(found, one) for one in possible)
        with Checkpoints(tmp_path, report=lines.append) as checkpoints:
            restored = checkpoints.restore_latest(state(0))
            assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
            if restored is None:
                assert printed == 0
                continue
            assert restored.step in (under_way - 1, under_way)
            assert_equal(restored.state, restored.step)
            first = restored.step + 1
    assert lines == []
    assert first > 1


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
def test_real_write_error_keeps_the_older_checkpoint(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert "saving step 2 failed" in done.stdout
    assert "1,600,000 bytes" in done.stdout
    assert str(tmp_path / "step_00000002") in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000001"]

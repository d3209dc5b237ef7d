"""Compiled programs are kept in a private directory, and those that come from it are counted.

The second start here is that of a single addition: on CPU, where tests run, reading a program back can hang its
process (seen with the networks of whole runs, jaxlib 0.10.1), which is why commands keep the cache to accelerators.
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from wbc_jax.errors import UsageError
from wbc_jax.runtime.compile_cache import enable_compile_cache

START = """
import sys, hashlib, warnings
warnings.simplefilter("error")
from wbc_jax.runtime.compile_cache import cache_counts, enable_compile_cache, silence_loader_messages
silence_loader_messages()
assert "jax" not in sys.modules
assert cache_counts() is None
enable_compile_cache(sys.argv[1])
"""

NETWORK = """
import jax, jax.numpy as jnp, numpy as np

def loss(kernels, images):
    for kernel in kernels:
        images = jax.lax.conv_general_dilated(
            images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        images = jax.nn.relu(images - images.mean((0, 1, 2), keepdims=True))
    return (images**2).mean()

keys = jax.random.split(jax.random.key(0), 4)
kernels = [jax.random.normal(key, (3, 3, 8, 8)) for key in keys]
images = jax.random.normal(jax.random.key(1), (2, 16, 16, 8))
leaves = jax.tree.leaves(jax.jit(jax.value_and_grad(loss))(kernels, images))
print(hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in leaves)).hexdigest(), end=" ")
"""

ADDITION = """
import jax, numpy as np
print(int(jax.jit(lambda x: x + 1)(np.int32(41))), end=" ")
"""

END = """
counts = cache_counts()
print(counts.hits, counts.misses)
"""


def run(folder: Path, program: str) -> tuple[str, int, int]:
    """What `program` prints, programs from the cache, programs compiled."""
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(
        [sys.executable, "-c", START + program + END, str(folder)],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
        timeout=120,
    )
    assert done.stderr == ""
    printed, hits, misses = done.stdout.split()
    return printed, int(hits), int(misses)


def test_programs_are_counted_and_kept_in_a_private_directory(tmp_path: Path) -> None:
    _, hits, misses = run(tmp_path, NETWORK)
    assert hits == 0
    assert misses > 0
    (folder,) = (tmp_path / "compiled").iterdir()
    assert any(folder.iterdir())
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_the_second_start_takes_its_programs_from_the_first(tmp_path: Path) -> None:
    assert run(tmp_path, ADDITION) == ("42", 0, 1)
    assert run(tmp_path, ADDITION) == ("42", 1, 0)


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_directory_that_others_can_write_is_refused_once(tmp_path: Path) -> None:
    from wbc_jax.runtime.compile_cache import machine_key

    folder = tmp_path / "compiled" / machine_key()
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    with pytest.raises(UsageError, match="other users could write"):
        enable_compile_cache(tmp_path)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be used"):
        enable_compile_cache(tmp_path / "file")

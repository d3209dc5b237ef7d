"""What glibc's allocator does with freed memory, seen from the process that it serves."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="no glibc to tell")

# A thread of its own asks for the block, as XLA's do; the number is MiB that stay with the process.
SCRIPT = """
import ctypes, threading
from wbc_jax.runtime import allocator
{prelude}
told = allocator.keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = (ctypes.c_void_p,)

def resident_mib():
    pages = int(open("/proc/self/statm").read().split()[1])
    return pages * 4096 >> 20

def step():
    block = libc.malloc(ctypes.c_size_t(200 << 20))
    ctypes.memset(block, 1, 200 << 20)
    libc.free(block)

before = resident_mib()
for _ in range(2):
    thread = threading.Thread(target=step)
    thread.start()
    thread.join()
print(told, resident_mib() - before, allocator.allocation(), sep="|")
"""


def kept(prelude: str = "", **environment: str) -> tuple[str, int, str]:
    """(whether glibc was told, MiB kept of 200 freed, how that is recorded)."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("GLIBC_", "MALLOC_"))}
    process = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(prelude=prelude)],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    told, mib, recorded = process.stdout.strip().split("|")
    return told, int(mib), recorded


def test_freed_memory_stays_for_the_next_step() -> None:
    told, mib, recorded = kept("allocator._ACCELERATORS = ()")
    assert (told, recorded) == ("True", "freed memory kept")
    assert 190 < mib < 250  # once, not once a step


def test_it_goes_back_where_somebody_has_chosen_otherwise() -> None:
    choice = "glibc.malloc.mmap_max=65536"
    told, mib, recorded = kept("allocator._ACCELERATORS = ()", GLIBC_TUNABLES=choice)
    assert (told, recorded) == ("False", choice)
    assert mib < 50
    assert kept("allocator._ACCELERATORS = ()", MALLOC_ARENA_MAX="2")[0] == "False"


def test_it_goes_back_beside_an_accelerator() -> None:
    told, mib, recorded = kept("allocator._ACCELERATORS = ('json',)")
    assert (told, recorded) == ("False", "None")
    assert mib < 50

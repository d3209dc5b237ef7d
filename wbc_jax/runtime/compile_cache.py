"""Compiled programs kept between starts, in a private directory, with counts of hits and misses.

Importing this module does not import jax.
"""

from __future__ import annotations

import hashlib
import os
import platform
import stat
import threading
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

from wbc_jax.errors import UsageError

_HIT_EVENT = "/jax/compilation_cache/cache_hits"
_MISS_EVENT = "/jax/compilation_cache/cache_misses"


@dataclass
class CacheCounts:
    """Programs taken from the cache and programs compiled since it was enabled."""

    hits: int = 0
    misses: int = 0


_counts: CacheCounts | None = None
_counting = threading.Lock()  # programs are compiled in several threads


def cache_counts() -> CacheCounts | None:
    """The counts so far; None where no cache was enabled."""
    return None if _counts is None else replace(_counts)


def silence_loader_messages() -> None:
    """Keeps XLA's C++ messages below `fatal` off the terminal; has an effect only before jax is imported.

    Through jaxlib 0.10.1 at least, a program that the CPU backend takes from the cache is greeted with two lines of
    3,000 characters that warn of a foreign machine: compiler preferences (prefer-no-gather) are compared with the
    features of the very machine that wrote it (jax-ml/jax#38445). Errors still arrive as Python exceptions.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def enable_compile_cache(cache_dir: str | Path) -> None:
    """Keeps compiled programs below `cache_dir` and counts them; call it before the first computation.

    The programs are executed as they are read, so the directory must belong to the user alone. Programs of the CPU
    backend fit one processor type, so the directory's name holds a digest of its features and of jaxlib's version:
    a home directory may be shared between machines.

    Raises:
        UsageError: the directory cannot be made, or others could write into it.
    """
    import jax

    directory = Path(cache_dir) / "compiled" / machine_key()
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        _require_private(directory)
    except OSError as error:
        raise UsageError(
            f"the directory for compiled programs cannot be used: {error}",
            where=str(directory),
            remedy="set WBC_CACHE_DIR to a writable folder, or --runtime.no-compile-cache",
        ) from error
    jax.config.update("jax_compilation_cache_dir", str(directory))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    global _counts
    if _counts is None:
        _counts = CacheCounts()
        jax.monitoring.register_event_listener(_count)


def _count(event: str, **_: object) -> None:
    if _counts is not None and event in (_HIT_EVENT, _MISS_EVENT):
        with _counting:
            _counts.hits += event == _HIT_EVENT
            _counts.misses += event == _MISS_EVENT


def machine_key() -> str:
    """A name for what a compiled CPU program depends on: jaxlib, processor model and features."""
    facts = [metadata.version("jaxlib"), platform.machine(), platform.processor()]
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for field in ("model name", "flags", "Features"):
        facts += [line for line in lines if line.startswith(field)][:1]
    return f"jaxlib-{facts[0]}-{hashlib.sha256('|'.join(facts).encode()).hexdigest()[:12]}"


def _require_private(directory: Path) -> None:
    if os.name != "posix":
        return
    found = directory.stat()
    if found.st_uid != os.getuid():
        raise UsageError(
            f"the directory for compiled programs belongs to user {found.st_uid}",
            expected=f"user {os.getuid()}: its content is executed",
            where=str(directory),
            remedy="set WBC_CACHE_DIR to a folder of your own",
        )
    if stat.S_IMODE(found.st_mode) & (stat.S_IWGRP | stat.S_IWOTH):
        directory.chmod(0o700)
        raise UsageError(
            "other users could write into the directory for compiled programs, whose content is executed",
            expected="mode 0700",
            where=str(directory),
            remedy="its mode is right now; delete what is in it and start again",
        )

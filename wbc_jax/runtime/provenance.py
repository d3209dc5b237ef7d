"""Where a result came from: code, versions, machine, command line."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from wbc_jax.runtime.devices import describe_device
from wbc_jax.runtime.json_files import read_json, write_json

__all__ = ["collect_provenance", "read_json", "source_commit", "versions", "write_json"]

_PACKAGES = (
    "wbc-jax",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "tensorflow-datasets",
    "numpy",
    "pillow",
    "scikit-learn",
)


def collect_provenance() -> dict[str, Any]:
    """JSON values that say how a run came about; unknown ones are None. Starts the jax backend."""
    commit, dirty = source_commit()
    return {
        "commit": commit,
        "dirty": dirty,
        "versions": versions(),
        "python": platform.python_version(),
        "device": describe_device(),
        "platform": platform.platform(),
        "host": platform.node(),
        "cpu_count": os.cpu_count(),
        "xla_flags": os.environ.get("XLA_FLAGS"),
        "libtpu_init_args": os.environ.get("LIBTPU_INIT_ARGS"),
        "command": sys.argv,
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def versions() -> dict[str, str | None]:
    """Installed version of each library that can change a result."""
    found: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def source_commit() -> tuple[str | None, bool | None]:
    """Commit of the checkout that this package runs from, and whether files there differ from it.

    (None, None) outside a checkout: an installed package that happens to lie in someone's repository (a
    virtual environment inside a project) must not report that repository's commit, hence the question whether
    git tracks this very file.
    """
    here = Path(__file__).resolve()
    if _git(here.parent, "ls-files", "--error-unmatch", here.name) is None:
        return None, None
    commit = _git(here.parent, "rev-parse", "HEAD")
    changes = _git(here.parent, "status", "--porcelain", "--untracked-files=no")
    return commit, None if changes is None else bool(changes)


def _git(directory: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(directory), *arguments], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()

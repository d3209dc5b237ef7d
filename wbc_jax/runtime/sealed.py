"""Sealed directories: written aside, listed with digests, renamed into place, verified before use.

The manifest lists every file with its size and SHA-256 and is written last, so its presence means that the
directory is complete, and a flipped bit anywhere, the manifest included, is noticed. Array libraries notice
neither: Orbax restores a checkpoint with one flipped bit as if nothing had happened.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

from wbc_jax.runtime.json_files import dumps_strict

MANIFEST_NAME = "manifest.json"
FORMAT_VERSION = 1

_PARTIAL_PREFIX = ".partial-"  # being written
_DISCARDED_PREFIX = ".discarded-"  # being deleted
_SUCCESSOR_SUFFIX = ".new"  # complete, about to take the place of a directory of the same name


class DamagedError(Exception):
    """A sealed directory whose content is not what was written; the text names the file."""


def partial_path(target: Path) -> Path:
    """A fresh empty directory beside `target` in which its content is prepared."""
    path = target.with_name(f"{_PARTIAL_PREFIX}{target.name}-{os.getpid()}")
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()  # not the parents: a directory that vanished (an unmounted disk) must not be made anew
    return path


def seal(directory: Path) -> None:
    """Flushes every file of `directory` to the disk and writes the manifest that completes it."""
    entries = {}
    for path in _files(directory):
        entries[path.relative_to(directory).as_posix()] = {
            "bytes": path.stat().st_size,
            "sha256": _sha256(path),
        }
        _flush_to_disk(path)
    body = {"format_version": FORMAT_VERSION, "files": entries}
    manifest = directory / MANIFEST_NAME
    manifest.write_text(
        dumps_strict(body | {"sha256": _body_digest(body)}, indent=1) + "\n", encoding="utf-8"
    )
    _flush_to_disk(manifest)
    for folder in [directory, *(path for path in directory.rglob("*") if path.is_dir())]:
        _flush_to_disk(folder)


def verify(directory: Path) -> None:
    """Compares every file of `directory` with its manifest.

    Raises:
        DamagedError: a file is missing, surplus or changed, or the manifest itself is.
    """
    manifest = directory / MANIFEST_NAME
    try:
        document = json.loads(manifest.read_text(encoding="utf-8"))
        body = {"format_version": document["format_version"], "files": document["files"]}
        expected = {str(name): (entry["bytes"], entry["sha256"]) for name, entry in body["files"].items()}
        sound = document["sha256"] == _body_digest(body)
    except FileNotFoundError:
        raise DamagedError(f"{MANIFEST_NAME} is missing: it was never completed") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"{MANIFEST_NAME} is unreadable ({error})") from error
    if not sound:
        raise DamagedError(f"{MANIFEST_NAME} does not match its own digest")
    if body["format_version"] != FORMAT_VERSION:
        raise DamagedError(
            f"{MANIFEST_NAME} has format {body['format_version']}, this program reads {FORMAT_VERSION}"
        )
    present = {path.relative_to(directory).as_posix(): path for path in _files(directory)}
    present.pop(MANIFEST_NAME, None)
    if missing := sorted(expected.keys() - present.keys()):
        raise DamagedError(f"{missing[0]} is missing")
    if surplus := sorted(present.keys() - expected.keys()):
        raise DamagedError(f"{surplus[0]} does not belong there")
    for name, (size_bytes, digest) in expected.items():
        try:
            found_bytes, found_digest = present[name].stat().st_size, _sha256(present[name])
        except OSError as error:
            raise DamagedError(f"{name} cannot be read ({error})") from error
        if found_bytes != size_bytes:
            raise DamagedError(f"{name} has {found_bytes} bytes instead of {size_bytes}")
        if found_digest != digest:
            raise DamagedError(f"{name} has changed since it was written")


def publish(prepared: Path, target: Path) -> None:
    """Gives the sealed directory `prepared` the name `target`, in place of an older one if there is one.

    At every moment a complete directory exists under `target` or under its successor name (`candidates`).
    """
    if target.exists():
        successor = target.with_name(target.name + _SUCCESSOR_SUFFIX)
        discard(successor)
        prepared.rename(successor)
        _flush_to_disk(target.parent)
        discard(target)
        successor.rename(target)
    else:
        prepared.rename(target)
    _flush_to_disk(target.parent)


def candidates(target: Path) -> list[Path]:
    """The directories that may hold the content of `target`, newest first."""
    successor = target.with_name(target.name + _SUCCESSOR_SUFFIX)
    return [path for path in (successor, target) if path.is_dir()]


def discard(directory: Path) -> None:
    """Deletes a directory; it loses its name first, so that half of it can never be taken for the whole."""
    if not directory.exists():
        return
    renamed = directory.with_name(f"{_DISCARDED_PREFIX}{directory.name}-{os.getpid()}")
    shutil.rmtree(renamed, ignore_errors=True)
    directory.rename(renamed)
    shutil.rmtree(renamed, ignore_errors=True)


def tidy(parent: Path) -> None:
    """Finishes what an interrupted process left: removes partial directories, completes replacements.

    Only for the one process that writes there.
    """
    if not parent.is_dir():
        return
    for path in sorted(parent.iterdir()):
        if path.name.startswith((_PARTIAL_PREFIX, _DISCARDED_PREFIX)):
            shutil.rmtree(path, ignore_errors=True)
        elif path.name.endswith(_SUCCESSOR_SUFFIX):
            target = path.with_name(path.name.removesuffix(_SUCCESSOR_SUFFIX))
            try:
                verify(path)
            except DamagedError:
                continue  # keep both: readers try the successor, then the older one
            discard(target)
            path.rename(target)


def _files(directory: Path) -> list[Path]:
    """Every file below, in a fixed order; `.DS_Store` and other hidden files are the machine's, not ours."""
    return sorted(path for path in directory.rglob("*") if path.is_file() and not path.name.startswith("."))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _body_digest(body: dict) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

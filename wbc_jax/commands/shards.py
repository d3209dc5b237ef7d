"""Shares of a large prediction: who does which images, and how a finished share is known again."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wbc_jax.commands.image_files import walk_images
from wbc_jax.errors import DataError, UsageError
from wbc_jax.runtime.json_files import read_json, write_json

_ARRAY = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN")
_PROCESSES = (
    ("SLURM_PROCID", "SLURM_NTASKS"),
    ("RANK", "WORLD_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
)
"""Variables for a process's number and their count, by launcher; the first that is in use counts."""


@dataclass(frozen=True)
class Shard:
    """Every `count`-th image from image `index` on."""

    index: int = 0
    count: int = 1

    def take(self, files: Iterator[Path]) -> Iterator[Path]:
        """This share of all images."""
        return itertools.islice(files, self.index, None, self.count)

    def out(self, path: Path) -> Path:
        """The file of this share."""
        if self.count == 1:
            return path
        return path.with_name(f"{path.stem}-{self.index:05d}-of-{self.count:05d}{path.suffix}")


def find_shard(text: str, environment: Mapping[str, str]) -> Shard:
    """The share that `off`, `auto` or `K/N` means.

    Raises:
        UsageError: another text, K outside 0 to N-1, or `auto` without a launcher's variables.
    """
    if text == "off":
        return Shard()
    if text == "auto":
        return _launched(environment)
    match = re.fullmatch(r"(\d{1,7})/(\d{1,7})", text)
    if match is None or not int(match[1]) < int(match[2]):
        raise UsageError(
            f"--shard {text}",
            expected="K/N with K from 0 to N-1, such as 3/16; auto; off",
            where="wbc-jax predict",
        )
    return Shard(int(match[1]), int(match[2]))


def _launched(environment: Mapping[str, str]) -> Shard:
    """The share of this process: of all processes of all elements of a SLURM array, where there is one."""
    array, processes = _array(environment), _processes(environment)
    if array is None and processes is None:
        batch_script = environment.get("SLURM_NTASKS", "1") != "1"
        raise UsageError(
            "this process is the batch script's own, of no task"
            if batch_script
            else "no launcher's variables are set",
            expected=f"{_ARRAY[0]} or one of {', '.join(index for index, _ in _PROCESSES)}, with its count",
            where="--shard auto",
            remedy="start it with srun, or give --shard K/N" if batch_script else "give --shard K/N",
        )
    outer, inner = array or Shard(), processes or Shard()
    return Shard(outer.index * inner.count + inner.index, outer.count * inner.count)


def _array(environment: Mapping[str, str]) -> Shard | None:
    index, count, first = (environment.get(name, "") for name in _ARRAY)
    if not (index.isdigit() and count.isdigit()):
        return None
    number = int(index) - int(first if first.isdigit() else "0")
    if not 0 <= number < int(count):
        raise UsageError(
            f"{_ARRAY[0]}={index} of {_ARRAY[1]}={count}",
            expected="consecutive numbers, as in --array=0-15",
            where="--shard auto",
            remedy="give --shard K/N",
        )
    return Shard(number, int(count))


def _processes(environment: Mapping[str, str]) -> Shard | None:
    for index, count in _PROCESSES:
        texts = [environment.get(name, "") for name in (index, count)]
        if not all(text.isdigit() for text in texts):
            continue
        if index == "SLURM_PROCID" and "SLURM_STEP_NODELIST" not in environment:
            continue  # the batch script's own process, one for all tasks
        if not int(texts[0]) < int(texts[1]):
            raise UsageError(
                f"{index}={texts[0]} of {count}={texts[1]}",
                expected="numbers from 0 on",
                where="--shard auto",
                remedy="give --shard K/N",
            )
        return Shard(int(texts[0]), int(texts[1]))
    return None


@dataclass(frozen=True, kw_only=True)
class Survey:
    """All images of a prediction, walked through once.

    Attributes:
        count: images in all.
        here: images of this share.
        digest: SHA-256 of all names, and of sizes and times of change of this share's files.
    """

    count: int
    here: int
    digest: str


def survey(paths: Sequence[Path], shard: Shard) -> Survey:
    """Counts the images; a file that is gone meanwhile counts, and is found unreadable later.

    Only this share's files are looked at: a file system shared by many processes answers each question once.
    """
    digest, count = hashlib.sha256(), 0
    for file in walk_images(paths):
        facts = _state(file) if count % shard.count == shard.index else ""
        digest.update(f"{facts} {file}\0".encode(errors="surrogateescape"))
        count += 1
    return Survey(count=count, here=len(range(shard.index, count, shard.count)), digest=digest.hexdigest())


def _state(file: Path) -> str:
    try:
        status = file.stat()
    except OSError:
        return "gone"
    return f"{status.st_size} {status.st_mtime_ns}"


def job_digest(model: str, images: str, framing: str, shard: Shard, part_images: int) -> str:
    """SHA-256 of all that decides the rows of a share and how they are cut into parts."""
    facts = (model, images, framing, str(shard.index), str(shard.count), str(part_images))
    return hashlib.sha256("\0".join(facts).encode()).hexdigest()


def _manifest(out: Path) -> Path:
    return out.with_name(out.name + ".done.json")


def is_finished(out: Path, job: str) -> bool:
    """Whether a share is there, whole, and of this job."""
    try:
        note = read_json(_manifest(out))
        return note["job"] == job and out.stat().st_size == note["bytes"]
    except (OSError, DataError, KeyError, TypeError):
        return False


def mark_finished(out: Path, job: str, images: int, skipped: int) -> None:
    """The manifest of a finished share, beside its file."""
    facts = {"job": job, "bytes": out.stat().st_size, "images": images, "skipped": skipped}
    write_json(_manifest(out), facts)

"""The two passes over the images of a data set: raw files to TFDS records, records to framed samples."""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
import shutil
import signal
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wbc_jax.catalog import CELL_CLASSES
from wbc_jax.data.datasets.facts import DATASETS
from wbc_jax.data.datasets.scan import Flaw
from wbc_jax.data.decode import BadImage, decode_image
from wbc_jax.data.framing import Framing, frame_image
from wbc_jax.data.samples import SOURCE_SPLITS, Sample
from wbc_jax.errors import DataError
from wbc_jax.runtime.cpus import usable_cpus

if TYPE_CHECKING:
    from wbc_jax.data.datasets.base import SmearBuilder

Progress = Callable[[str, int, int], object]
"""Called with the stage's name, the images done and their number."""

_DECODE_AHEAD = 8
_RECORD_OVERHEAD = 1.05


def write_records(records: SmearBuilder, raw: Path, show: Progress) -> dict[str, Any]:
    """Runs a builder whose folder is empty.

    Returns:
        What the raw folder held, by class and split, and what was left out, as plain values.

    Raises:
        DataError: no images, or a single class in a folder whose classes are not known beforehand.
    """
    import tensorflow_datasets as tfds

    records.on_progress = show
    scan = records.collect(raw)
    counts = Counter((image.cell_class, image.source_split) for image in scan.images)
    present = {cell_class for cell_class, _ in counts}
    info = DATASETS[records.name]
    if not scan.images:
        left_out = "".join(f"\n  {flaw.id}: {flaw.reason}" for flaw in (*scan.problems, *scan.skipped)[:10])
        raise DataError(
            f"no images of {records.name} found" + (f"; left out:{left_out}" if left_out else ""),
            expected=info.layout,
            where=str(raw),
            remedy="check the folder and its class folders' names",
        )
    if len(present) < 2 and not info.classes:
        raise DataError(
            f"only one class: {', '.join(present)}",
            expected="at least two class folders",
            where=str(raw),
            remedy=f"lay the images out as {info.layout}",
        )
    if not info.generated:
        sizes = {image.path: image.path.stat().st_size for image in scan.images}
        _require_space(Path(records.data_dir_root).parent, int(sum(sizes.values()) * _RECORD_OVERHEAD))
    done, terminal = Counter[str](), sys.stdout

    def count() -> None:
        done["images"] += 1
        with contextlib.redirect_stdout(terminal):
            show("read", done["images"], len(scan.images))

    records.on_example = count
    with _quiet_tfds(tfds), _readable_write_errors(records):
        records.download_and_prepare(
            download_config=tfds.download.DownloadConfig(manual_dir=str(raw), try_download_gcs=False)
        )
    known = [name for name in info.classes or CELL_CLASSES if name in present]
    return {
        "images": len(scan.images),
        "classes": [*known, *sorted(present - set(known))],
        "counts": [
            {"cell_class": cell_class, "source_split": split, "images": n}
            for (cell_class, split), n in sorted(counts.items())
        ],
        "skipped": [asdict(flaw) for flaw in scan.skipped],
        "problems": [asdict(flaw) for flaw in scan.problems],
        "notes": scan.notes,
    }


def count_usable(records: SmearBuilder) -> int:
    """Number of records that `framed_samples` goes through."""
    return sum(_splits(records)[name].num_examples for name in _usable_splits(records))


def framed_samples(
    records: SmearBuilder, *, size_px: int, framing: Framing, show: Progress, processes: int = 0
) -> Iterator[Sample | Flaw]:
    """Samples with square images in the order of the records; a Flaw in place of one that cannot be decoded.

    They are decoded by so many processes, or by threads of this one where `processes` is 0: the same samples in the
    same order.

    Images in source splits other than train, val and test stay out: TEST_SIMPLE of BCCD holds the originals of its
    test images, TestB of Raabin comes from another microscope.
    """
    import tensorflow_datasets as tfds

    decoders = {"image": tfds.decode.SkipDecoding()}
    read: Any = records.as_data_source  # TFDS's decorator hides its signature from type checkers
    sources = [read(name, decoders=decoders) for name in _usable_splits(records)]
    examples = (source[row] for source in sources for row in range(len(source)))
    total, done = sum(len(source) for source in sources), 0
    workers = processes or usable_cpus()
    pending: deque[Future[Sample | Flaw]] = deque()
    with _decoders(processes, workers) as pool:
        for example in examples:
            pending.append(pool.submit(_framed, example, size_px, framing))
            if len(pending) == workers * _DECODE_AHEAD:  # bounds memory
                yield pending.popleft().result()
                show("decode", done := done + 1, total)
        while pending:
            yield pending.popleft().result()
            show("decode", done := done + 1, total)


@contextlib.contextmanager
def _decoders(processes: int, threads: int) -> Iterator[Executor]:
    """Threads, which decode and resample outside the interpreter lock, or processes, which share no lock at all.

    An interruption leaves what has not begun undone; what has begun is waited for.
    """
    if not processes:
        pool: Executor = ThreadPoolExecutor(threads)
    else:
        # Spawned, because a forked copy of a process with threads (jax has some) can wait for ever.
        pool = ProcessPoolExecutor(
            processes,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_leave_interrupts_to_parent,
        )
    try:
        yield pool
    except BrokenProcessPool as error:
        raise DataError(
            "a process that decodes images ended early",
            expected="processes that live until all images are decoded",
            remedy="memory may be short: use fewer --processes, or 0 for threads of one process",
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _leave_interrupts_to_parent() -> None:
    """The terminal sends Ctrl-C to all processes; the parent alone says what happens."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _usable_splits(records: SmearBuilder) -> list[str]:
    from wbc_jax.data.datasets.base import UNSPLIT

    return [name for name in _splits(records) if name in (*SOURCE_SPLITS, UNSPLIT)]


def _splits(records: SmearBuilder) -> Mapping[str, Any]:
    info: Any = records.info
    return info.splits


def _framed(example: dict[str, Any], size_px: int, framing: Framing) -> Sample | Flaw:
    text = {key: example[key].decode() for key in ("id", "cell_class", "source_split", "group", "sha256")}
    data: bytes = example["image"]
    is_crop = "#" in text["id"]  # its digest is that of the whole image and the box
    if not is_crop and hashlib.sha256(data).hexdigest() != text["sha256"]:
        return Flaw(text["id"], "changed while it was being read", text["cell_class"])
    try:
        square = frame_image(decode_image(data, text["id"]), size_px, framing)
    except BadImage as error:
        return Flaw(text["id"], error.reason, text["cell_class"])
    attributes = tuple(int(value) for value in example["attributes"])
    return Sample(image=square, attributes=attributes, **text)


def _require_space(home: Path, needed: int) -> None:
    free = shutil.disk_usage(home).free
    if free < needed:
        raise DataError(
            f"{needed / 2**20:,.0f} MiB are needed, {free / 2**20:,.0f} MiB are free",
            where=str(home),
            remedy="free some space, or use another disk with --data.cache-dir or WBC_CACHE_DIR",
        )


@contextlib.contextmanager
def _readable_write_errors(records: SmearBuilder) -> Iterator[None]:
    """ArrayRecord reports a full or failing disk as a RuntimeError that quotes the file's path."""
    try:
        yield
    except RuntimeError as error:
        if str(records.data_dir_root) not in str(error):
            raise
        raise DataError(
            f"the records cannot be written: {str(error).split(';')[0]}",
            where=str(records.data_dir_root),
            remedy="free some space, or use another disk with --data.cache-dir or WBC_CACHE_DIR",
        ) from error


@contextlib.contextmanager
def _quiet_tfds(tfds: Any) -> Iterator[None]:
    """Keeps TFDS's own bars and lines off the terminal; there is one bar already."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        tfds.disable_progress_bar()
        yield

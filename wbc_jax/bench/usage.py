"""Peak memory of preparing, training and predicting at several image counts, and the time of `import wbc_jax`.

Prepare and predict should be flat in the number of images; training holds the embedded data set's images.
"""

from __future__ import annotations

import os
import shlex
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from wbc_jax.bench.memory import Usage, measure_command
from wbc_jax.bench.schema import Row, append_rows, check_out, describe_machine
from wbc_jax.bench.table import print_rows
from wbc_jax.errors import EXIT_OK, UsageError

_CLASSES = ("basophil", "eosinophil", "lymphocyte", "monocyte", "neutrophil")
_IMPORTS = 5
_TIME_IMPORT = "import time; t = time.perf_counter(); import wbc_jax; print(time.perf_counter() - t)"


@dataclass(frozen=True, kw_only=True)
class UsageOptions:
    """Commands in processes of their own, watched."""

    images: tuple[int, ...] = (500, 2000)
    """Image counts at which prepare and predict are measured."""
    source_px: int = 360
    """Side of the JPEG files that are generated, px; PBC's are about this size."""
    store_size_px: int = 256
    """Side of the images in the prepared stores, px."""
    train_options: str = ""
    """More options of `wbc-jax train`, in one string, such as "--train.epochs 1"; none: the whole quickstart."""
    out: Path | None = None
    """CSV file that rows are added to; None: they are only printed."""


def run_memory(options: UsageOptions) -> int:
    """Measure peak memory of prepare, train and predict, and the import's time."""
    check_out(options.out)
    machine = describe_machine()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        for row in _measure(options, Path(name)):
            rows.append(row)
            if options.out is not None:
                append_rows(options.out, machine, [row])
    print_rows(machine, rows)
    return EXIT_OK


def _measure(options: UsageOptions, folder: Path) -> Iterator[Row]:
    yield _row("import", None, _import_time(folder))
    sources = {count: folder / f"images-{count}" for count in options.images}
    for count, source in sources.items():
        _write_images(source, count, options.source_px)
        prepare = ["data", "prepare", "image_folder", "--raw-dir", str(source)]
        prepare += ["--store-size-px", str(options.store_size_px)]
        # A cache of its own: the second data set of that name would otherwise belong to other files.
        yield _row("prepare", count, _run(prepare, folder, cache=folder / f"cache-{count}"))
    run_dir = str(folder / "run")
    train = ["train", "--run-dir", run_dir, *shlex.split(options.train_options)]
    yield _row("train", None, _run(train, folder, cache=folder / "cache"))
    for count, source in sources.items():
        predict = ["predict", run_dir, str(source), "--out", str(folder / f"predictions-{count}.csv")]
        yield _row("predict", count, _run(predict, folder, cache=folder / "cache"))


def _run(arguments: Sequence[str], folder: Path, cache: Path) -> Usage:
    cache.mkdir(mode=0o700, exist_ok=True)
    command = [sys.executable, "-m", "wbc_jax", *arguments]
    usage = measure_command(command, env=_environment(WBC_CACHE_DIR=str(cache)), cwd=folder)
    if usage.code != 0:
        raise UsageError(
            f"wbc-jax {shlex.join(arguments)} ended with {usage.code}:\n{usage.output[-2000:]}",
            where="benchmarks/memory.py",
        )
    return usage


def _environment(**extra: str) -> dict[str, str]:
    """This process's, with the package that is running importable from anywhere."""
    package_root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, (package_root, os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, **extra}


def _import_time(folder: Path) -> Usage:
    """The median of five; the first one writes byte code, and is not counted."""
    usages = [
        measure_command([sys.executable, "-c", _TIME_IMPORT], env=_environment(), cwd=folder)
        for _ in range(_IMPORTS + 1)
    ][1:]
    seconds = statistics.median(float(usage.output) for usage in usages)
    return Usage(0, seconds, max(usage.peak_bytes for usage in usages), "")


def _row(what: str, images: int | None, usage: Usage) -> Row:
    return Row(
        benchmark="memory",
        model="memory",
        mode=what,
        data_mode="",
        precision="",
        batch_size=None,
        image_size_px=None,
        images_per_s=None if images is None else images / usage.wall_s,
        step_ms=None,
        iqr_ms=None,
        warmup_steps=None,
        timed_steps=None,
        repeats=_IMPORTS if what == "import" else 1,
        peak_memory_gib=usage.peak_bytes / 2**30,
        images=images,
        wall_s=usage.wall_s,
    )


def _write_images(folder: Path, count: int, side_px: int) -> None:
    """JPEG files in class folders: a random disc each, so that none is a duplicate of another."""
    import numpy as np
    from PIL import Image

    rows, columns = np.mgrid[0:side_px, 0:side_px]
    for index in range(count):
        rng = np.random.default_rng(index)
        centre = rng.uniform(0.3, 0.7, 2) * side_px
        radius = rng.uniform(0.1, 0.3) * side_px
        inside = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < radius**2
        pixels = np.where(inside[:, :, None], rng.integers(60, 160, 3), rng.integers(190, 250, 3))
        target = folder / _CLASSES[index % len(_CLASSES)] / f"{index:06d}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(target, quality=90)

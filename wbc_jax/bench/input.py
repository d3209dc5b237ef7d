"""`benchmark input`: how fast batches come out of a store, streamed or gathered on the device, and get augmented."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wbc_jax.bench.options import TimingOptions, on_cpu
from wbc_jax.bench.schema import Row, append_rows, describe_machine
from wbc_jax.bench.synthetic_store import find_jpegs
from wbc_jax.bench.table import print_rows
from wbc_jax.bench.timing import (
    RunChain,
    Timing,
    interquartile_range,
    paired_ratios,
    steps_in_all,
    time_interleaved,
)
from wbc_jax.errors import EXIT_OK, UsageError
from wbc_jax.runtime.cpus import usable_cpus

_DATA_MODES = {
    "resident": "device-resident",
    "augment": "synthetic-fixed",
    "stream": "streaming",
    "resident+augment": "device-resident",
    "stream+augment": "streaming",
}
_TORCH = "torch-jpeg"


@dataclass(frozen=True, kw_only=True)
class InputOptions(TimingOptions):
    """Loaders and augmentation, on a store of noise."""

    images: int = 2048
    """Images in the store that is generated."""
    store_size_px: int = 256
    """Side of the images in the store, px."""
    image_size_px: int = 224
    """Side of the augmented images, px."""
    batch_size: int | None = None
    """Images per step; None: 32 on a CPU, 256 on accelerators."""
    stream_workers: int = 0
    """Worker processes of the streaming loader; 0: none."""
    jpeg_dir: Path | None = None
    """Folder of JPEG files, at any depth: the store is made of them, and a torch DataLoader that decodes and augments
    the same files is measured in turns. None: noise, and no peer."""
    torch_workers: int | None = None
    """Worker processes of the torch DataLoader; None: one for each CPU thread."""

    def batch(self) -> int:
        """`batch_size` with its default for this backend."""
        return self.batch_size or (32 if on_cpu() else 256)

    def steps(self) -> int:
        """Batches are quick: chains of 20 everywhere."""
        return self.timed_steps or 20


def run_input(options: InputOptions) -> int:
    """Measure the device-resident gather, the streaming loader and the augmentation, with JPEG files also torch's."""
    options.check()
    from wbc_jax.bench.feeds import Feed
    from wbc_jax.bench.synthetic_store import write_jpeg_store, write_noise_store

    machine = describe_machine()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        path = Path(folder) / "store"
        paths = _jpegs(options)
        if paths:
            store = write_jpeg_store(path, paths, options.store_size_px)
        else:
            store = write_noise_store(path, options.images, options.store_size_px, 5)
        contenders = _contenders(Feed(store, options.batch(), options.stream_workers), options, stack)
        if paths:
            contenders[_TORCH] = _torch_loader(paths, options)
        timings = time_interleaved(
            contenders,
            warmup_steps=options.warmup_steps,
            timed_steps=options.steps(),
            repeats=options.repeats,
        )
    rows = [_row(name, timings, options, len(store)) for name in timings if name != _TORCH]
    if options.out is not None:
        append_rows(options.out, machine, rows)
    print_rows(machine, rows)
    return EXIT_OK


def _contenders(feed: Any, options: InputOptions, stack: ExitStack) -> dict[str, RunChain]:
    """Loaders and augmentation alone, then each loader with it: what a training step is given."""
    from wbc_jax.bench.feeds import stream_is_possible

    size = options.image_size_px
    chains = {"resident": _resident(feed), "augment": _augment(feed, size)}
    streams = stream_is_possible()
    if streams:
        chains["stream"] = _stream(feed, options, stack)
    chains["resident+augment"] = _resident(feed, size)
    if streams:
        chains["stream+augment"] = _stream(feed, options, stack, size)
    return chains


def _row(name: str, timings: dict[str, Timing], options: InputOptions, images: int) -> Row:
    timing, batch = timings[name], options.batch()
    augmented = name.endswith("augment")
    beside: dict[str, Any] = {}
    if _TORCH in timings and name.endswith("+augment"):
        peer = timings[_TORCH]
        beside = {
            "peer": f"torch DataLoader, JPEG, {_workers(options)} workers",
            "peer_images_per_s": batch / peer.median,
            "peer_iqr_ms": 1e3 * peer.iqr,
            "ratio": peer.median / timing.median,
            "ratio_iqr": interquartile_range(paired_ratios(timing, peer)),
        }
    return Row(
        benchmark="input",
        model="input",
        mode=name,
        data_mode=_DATA_MODES[name],
        precision="float32" if augmented else "uint8",
        batch_size=batch,
        image_size_px=options.image_size_px if augmented else options.store_size_px,
        images_per_s=batch / timing.median,
        step_ms=1e3 * timing.median,
        iqr_ms=1e3 * timing.iqr,
        warmup_steps=options.warmup_steps,
        timed_steps=options.steps(),
        repeats=options.repeats,
        images=images,
        **beside,
    )


def _jpegs(options: InputOptions) -> tuple[Path, ...]:
    if options.jpeg_dir is None:
        return ()
    from wbc_jax.bench.twins import require_torch

    found = find_jpegs(options.jpeg_dir, options.images)
    if len(found) < options.batch():
        raise UsageError(
            f"{len(found)} JPEG files",
            expected=f"at least {options.batch()}, a batch",
            where=str(options.jpeg_dir),
            remedy="give another --jpeg-dir, or a smaller --batch-size",
        )
    require_torch()
    return found


def _workers(options: InputOptions) -> int:
    return usable_cpus() if options.torch_workers is None else options.torch_workers


def _torch_loader(paths: tuple[Path, ...], options: InputOptions) -> RunChain:
    from wbc_jax.bench.torch_loader import JpegWork, jpeg_batches

    names = tuple(str(path) for path in paths)
    work = JpegWork(names, options.store_size_px, options.image_size_px)
    batches = jpeg_batches(work, options.batch(), _workers(options))
    next(batches)  # the workers have started
    return lambda steps: list(itertools.islice(batches, steps))


def _stream(feed: Any, options: InputOptions, stack: ExitStack, image_size_px: int | None = None) -> RunChain:
    import jax

    # Two more than are asked for: a stream closes itself with its last batch, and one is compiled with.
    total = steps_in_all(options.warmup_steps, options.steps(), options.repeats) + 2
    batches = stack.enter_context(feed.stream(total))
    if image_size_px is not None:
        augment, counts = _augmentation(image_size_px), _counts()
        return _each(augment, lambda: (next(counts), next(batches).images))

    def run(steps: int) -> None:
        for batch in itertools.islice(batches, steps):
            jax.block_until_ready(batch)

    return run


def _resident(feed: Any, image_size_px: int | None = None) -> RunChain:

    from wbc_jax.data.resident import gather

    sources = feed.resident_sources()
    if image_size_px is None:
        return _each(gather, lambda: next(sources))
    augment, counts = _augmentation(image_size_px), _counts()
    return _each(
        lambda index, *source: augment(index, gather(*source).images), lambda: (next(counts), *next(sources))
    )


def _augmentation(image_size_px: int) -> Callable[[Any, Any], Any]:
    """(index, images) -> augmented images. The draws follow from the index, an argument of the compiled program:
    draws from a constant key would be made by the compiler."""
    import jax

    from wbc_jax.bench.feeds import default_augment

    augment = default_augment(image_size_px)
    return lambda index, images: augment(jax.random.fold_in(jax.random.key(0), index), images)


def _counts() -> Iterator[Any]:
    import jax

    return map(jax.numpy.uint32, itertools.count())


def _augment(feed: Any, image_size_px: int) -> RunChain:
    from wbc_jax.data.resident import gather

    augment, counts = _augmentation(image_size_px), _counts()
    images = gather(*next(feed.resident_sources())).images
    return _each(augment, lambda: (next(counts), images))


def _each(function: Callable[..., Any], arguments: Callable[[], tuple[Any, ...]]) -> RunChain:
    """Compiles now; a chain awaits each step, as none needs the result of another."""
    import jax

    compiled = jax.jit(function)
    jax.block_until_ready(compiled(*arguments()))

    def run(steps: int) -> None:
        for _ in range(steps):
            jax.block_until_ready(compiled(*arguments()))

    return run

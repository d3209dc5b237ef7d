"""`benchmark input`: how fast batches come out of a store, streamed or gathered on the device, and get augmented."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wbc_jax.bench.options import TimingOptions, on_cpu
from wbc_jax.bench.schema import Row, append_rows, describe_machine
from wbc_jax.bench.table import print_rows
from wbc_jax.bench.timing import RunChain, steps_in_all, time_interleaved
from wbc_jax.errors import EXIT_OK

_DATA_MODES = {"stream": "streaming", "resident": "device-resident", "augment": "synthetic-fixed"}


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

    def batch(self) -> int:
        """`batch_size` with its default for this backend."""
        return self.batch_size or (32 if on_cpu() else 256)

    def steps(self) -> int:
        """Batches are quick: chains of 20 everywhere."""
        return self.timed_steps or 20


def run_input(options: InputOptions) -> int:
    """Measure the streaming loader, the device-resident gather and the augmentation."""
    options.check()
    from wbc_jax.bench.feeds import Feed, stream_is_possible
    from wbc_jax.bench.synthetic_store import write_noise_store

    machine = describe_machine()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        store = write_noise_store(Path(folder) / "store", options.images, options.store_size_px, 5)
        feed = Feed(store, options.batch(), options.stream_workers)
        contenders = {"resident": _resident(feed), "augment": _augment(feed, options.image_size_px)}
        if stream_is_possible():
            contenders["stream"] = _stream(feed, options, stack)
        timings = time_interleaved(
            contenders,
            warmup_steps=options.warmup_steps,
            timed_steps=options.steps(),
            repeats=options.repeats,
        )
    rows = [
        Row(
            benchmark="input",
            model="input",
            mode=name,
            data_mode=_DATA_MODES[name],
            precision="float32" if name == "augment" else "uint8",
            batch_size=options.batch(),
            image_size_px=options.image_size_px if name == "augment" else options.store_size_px,
            images_per_s=options.batch() / timing.median,
            step_ms=1e3 * timing.median,
            iqr_ms=1e3 * timing.iqr,
            warmup_steps=options.warmup_steps,
            timed_steps=options.steps(),
            repeats=options.repeats,
            images=options.images,
        )
        for name, timing in timings.items()
    ]
    if options.out is not None:
        append_rows(options.out, machine, rows)
    print_rows(machine, rows)
    return EXIT_OK


def _stream(feed: Any, options: InputOptions, stack: ExitStack) -> RunChain:
    import jax

    # One more than is asked for: a stream closes itself with its last batch.
    total = steps_in_all(options.warmup_steps, options.steps(), options.repeats) + 1
    batches = stack.enter_context(feed.stream(total))

    def run(steps: int) -> None:
        for batch in itertools.islice(batches, steps):
            jax.block_until_ready(batch)

    return run


def _resident(feed: Any) -> RunChain:
    from wbc_jax.data.resident import gather

    sources = feed.resident_sources()
    return _each(gather, lambda: next(sources))


def _augment(feed: Any, image_size_px: int) -> RunChain:
    import jax

    from wbc_jax.bench.feeds import default_augment
    from wbc_jax.data.resident import gather

    augment, keys = default_augment(image_size_px), itertools.count()
    data, rows, mask = next(feed.resident_sources())
    images = gather(data, rows, mask).images
    return _each(
        lambda index, images: augment(jax.random.fold_in(jax.random.key(0), index), images),
        lambda: (jax.numpy.uint32(next(keys)), images),
    )


def _each(function: Callable[..., Any], arguments: Callable[[], tuple[Any, ...]]) -> RunChain:
    """Compiles now; a chain awaits each step, as none needs the result of another."""
    import jax

    compiled = jax.jit(function)
    jax.block_until_ready(compiled(*arguments()))

    def run(steps: int) -> None:
        for _ in range(steps):
            jax.block_until_ready(compiled(*arguments()))

    return run

"""Image files as batches for the commands that apply a network: found, decoded in threads, in bounded memory."""

from __future__ import annotations

import collections
import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from wbc_jax.data.decode import IMAGE_SUFFIXES, BadImage, read_image
from wbc_jax.data.framing import Framing, frame_image
from wbc_jax.errors import DataError, UsageError
from wbc_jax.runtime.cpus import usable_cpus

OnBadImage = Literal["stop", "skip"]
DecodedImage = tuple[str, np.ndarray] | BadImage
"""A name with uint8 `(S, S, 3)`, or why the file cannot be used."""

# Decoders let go of Python's lock most of the time, so threads serve; more than these have not been tried.
_MAX_THREADS = 32
_READ_AHEAD = 64
"""Framed images that may wait for the network, besides the batch under way."""


@dataclass(frozen=True, kw_only=True)
class ImageBatch:
    """Images of one call of the network.

    Attributes:
        paths: names of the images, one each.
        images: uint8 `(B, S, S, 3)`; rows after the last name are filling.
    """

    paths: list[str]
    images: np.ndarray


def find_images(paths: Sequence[Path]) -> list[Path]:
    """`walk_images` as a list, for commands that look at few.

    Raises:
        UsageError: a path that does not exist (all are listed), or no image at all.
    """
    require_paths(paths)
    found = list(walk_images(paths))
    if not found:
        raise no_images(paths)
    return found


def walk_images(paths: Sequence[Path]) -> Iterator[Path]:
    """Files as given, whatever their ending, and the images below each folder in the order of their names.

    A file that is named twice comes once. One folder's names are in memory at a time, and those of the folders above.
    """
    given = [Path(path) for path in paths]
    for index, path in enumerate(given):
        before = given[:index]
        for image in _images_below(path) if path.is_dir() else iter((path,)):
            if not any(image == earlier or earlier in image.parents for earlier in before):
                yield image


def require_paths(paths: Sequence[Path]) -> None:
    """UsageError that lists all paths that do not exist."""
    missing = [str(path) for path in paths if not Path(path).exists()]
    if missing:
        raise UsageError(
            "no such file or folder: " + ", ".join(missing),
            expected="image files, or folders that are searched for images",
        )


def no_images(paths: Sequence[Path]) -> UsageError:
    """Nothing to look at."""
    return UsageError(
        "no images found",
        expected=f"files ending in {', '.join(IMAGE_SUFFIXES)}",
        where=", ".join(map(str, paths)) or "no path given",
        remedy="check the path; folders are searched with all their subfolders",
    )


def _images_below(folder: Path) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        here = sorted((entry.name, entry.is_dir(follow_symlinks=False), entry.is_file()) for entry in entries)
    for name, is_folder, is_file in here:
        if is_folder:
            yield from _images_below(folder / name)
        elif is_file and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES:
            yield folder / name


def read_images(
    paths: Iterable[Path],
    *,
    size_px: int,
    framing: Framing,
    on_bad_image: OnBadImage,
    read_ahead: int = _READ_AHEAD,
) -> Generator[DecodedImage]:
    """Name and uint8 `(size_px, size_px, 3)` of each file in order, or why it cannot be used.

    Up to `read_ahead` images are decoded before they are asked for.

    Raises:
        BadImage: at the first unusable file, with `on_bad_image` stop.
    """

    def framed(path: Path) -> DecodedImage:
        try:
            return str(path), frame_image(read_image(path), size_px, framing)
        except BadImage as problem:
            return problem

    pool = ThreadPoolExecutor(max_workers=min(_MAX_THREADS, usable_cpus()), thread_name_prefix="decode")
    waiting: collections.deque[Future[DecodedImage]] = collections.deque()
    remaining = iter(paths)
    try:
        while True:
            while len(waiting) < read_ahead and (path := next(remaining, None)) is not None:
                waiting.append(pool.submit(framed, path))
            if not waiting:
                return
            image = waiting.popleft().result()
            if isinstance(image, BadImage) and on_bad_image == "stop":
                raise image
            yield image
    finally:
        pool.shutdown(cancel_futures=True)


def make_batches(
    images: Iterable[DecodedImage], batch_size: int, skipped: list[BadImage]
) -> Iterator[ImageBatch]:
    """Usable images in batches of one shape, so that the network is compiled once; the others go to `skipped`."""
    names: list[str] = []
    pixels: list[np.ndarray] = []
    for image in images:
        if isinstance(image, BadImage):
            skipped.append(image)
            continue
        names.append(image[0])
        pixels.append(image[1])
        if len(names) == batch_size:
            yield ImageBatch(paths=names, images=np.stack(pixels))
            names, pixels = [], []
    if names:
        filling = [np.zeros_like(pixels[0])] * (batch_size - len(pixels))
        yield ImageBatch(paths=names, images=np.stack(pixels + filling))


def none_readable(skipped: Sequence[BadImage]) -> DataError:
    """Every image was unusable."""
    lines = [f"  {problem.name}: {problem.reason}" for problem in skipped[:10]]
    more = [f"  and {len(skipped) - 10} more"] if len(skipped) > 10 else []
    return DataError(
        "\n".join([f"none of the {len(skipped)} images can be used:", *lines, *more]),
        expected="whole, single JPEG, PNG, BMP or TIFF images",
        remedy="check that these files are images",
    )

"""Groups of images that show one microscope field, read off the pixels where no name tells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

from wbc_jax.data.datasets.scan import Scan
from wbc_jax.data.decode import BadImage, read_image
from wbc_jax.data.keypoints import LONG_SIDE_PX, Field, describe
from wbc_jax.data.smear_fields import group_fields
from wbc_jax.runtime.cpus import usable_cpus

Progress = Callable[[str, int, int], object]
"""Called with the stage's name, what is done and the whole."""

_IN_ONE_PROCESS = 256
"""Images up to which starting further processes takes longer than it saves."""
_CHUNK = 32


def with_fields(scan: Scan, originals: Mapping[str, Path], on_progress: Progress | None = None) -> Scan:
    """The scan with the field that each image shows as its group.

    A group is named by the first original that it holds, else by the first id. An image whose field no other image
    and no original shows, or that cannot be read, has no group.

    Args:
        scan: images without groups.
        originals: whole fields by name, that images may be copies of; none are needed.
        on_progress: called as images are described and pairs are compared.
    """
    names = sorted(originals)
    paths = [originals[name] for name in names] + [image.path for image in scan.images]
    show = on_progress or (lambda stage, done, total: None)
    fields: list[Field] = []
    for field in _described(paths):
        fields.append(field)
        show("keypoints", len(fields), len(paths))
    roots = group_fields(fields, on_progress=lambda done, total: show("fields", done, total))
    sizes = Counter(roots.tolist())
    labels = [*names, *(image.id for image in scan.images)]
    groups = ["" if sizes[root] == 1 else labels[root] for root in roots.tolist()]
    images = [
        replace(image, group=group) for image, group in zip(scan.images, groups[len(names) :], strict=True)
    ]
    alone = sum(not image.group for image in images)
    found = len({image.group for image in images} - {""})
    note = f"{len(images) - alone} images show {found} fields of which there is another picture; {alone} stand alone"
    return replace(scan, images=images, notes=[*scan.notes, note])


def read_field(path: Path) -> Field:
    """Keypoints of an image file; none of a file that is no usable image, which preparation reports by itself."""
    try:
        rgb = read_image(path)
    except BadImage:
        rgb = np.zeros((LONG_SIDE_PX, LONG_SIDE_PX, 3), np.uint8)
    height, width = rgb.shape[:2]
    scale = LONG_SIDE_PX / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return describe(np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BOX)))


def _described(paths: Sequence[Path]) -> Iterator[Field]:
    if len(paths) <= _IN_ONE_PROCESS:
        yield from map(read_field, paths)
        return
    # Processes: scikit-image holds the interpreter lock. Spawned: JAX's threads do not survive a fork.
    with ProcessPoolExecutor(usable_cpus(), mp_context=get_context("spawn")) as pool:
        try:
            yield from pool.map(read_field, paths, chunksize=_CHUNK)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

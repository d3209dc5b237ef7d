"""The usual input of a PyTorch training: a DataLoader whose workers decode JPEG files and augment with torchvision.

The same files, sizes and strengths as ours, but for the stain shift, which torchvision has not. What its workers have
ready before a timed chain begins, one batch each, is in its favour.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from wbc_jax.bench.twins.library import torchvision_models
from wbc_jax.config import AugmentConfig


@dataclass(frozen=True)
class JpegWork:
    """What is done to each file.

    Attributes:
        paths: JPEG files.
        store_size_px: side that an image is resized to first.
        image_size_px: side of the augmented image.
    """

    paths: tuple[str, ...]
    store_size_px: int
    image_size_px: int


class JpegImages(Dataset[torch.Tensor]):
    """float32 `(3, S, S)`, augmented and normalised."""

    def __init__(self, work: JpegWork) -> None:
        self._work, self._transform = work, None

    def __len__(self) -> int:
        return len(self._work.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        from PIL import Image

        if self._transform is None:  # made in the worker: it does not travel between processes
            self._transform = _transform(self._work)
        with Image.open(self._work.paths[index]) as image:
            return self._transform(image.convert("RGB"))


def jpeg_batches(work: JpegWork, batch_size: int, workers: int) -> Iterator[torch.Tensor]:
    """Batches `(B, 3, S, S)` without end, epoch after epoch, shuffled; a last one that is not full is dropped."""
    loader = DataLoader(
        JpegImages(work),
        batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        multiprocessing_context="spawn" if workers else None,  # jax's threads do not survive a fork
        persistent_workers=workers > 0,
        prefetch_factor=1 if workers else None,
    )
    while True:
        yield from loader


def _transform(work: JpegWork) -> Any:
    torchvision_models()
    from torchvision import transforms

    chosen = AugmentConfig()
    steps: list[Any] = [
        transforms.Resize((work.store_size_px, work.store_size_px)),
        transforms.RandomAffine(
            chosen.rotation_deg,
            (chosen.translation, chosen.translation),
            chosen.scale,
            interpolation=transforms.InterpolationMode.BILINEAR,
        ),
        transforms.CenterCrop(work.image_size_px),
        transforms.RandomHorizontalFlip(),
        transforms.RandomVerticalFlip(),
        transforms.ColorJitter(chosen.brightness, chosen.contrast, chosen.saturation, chosen.hue),
        transforms.ToTensor(),
        transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ]
    return transforms.Compose(steps)

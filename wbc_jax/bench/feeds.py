"""The ways in which a training step gets its images, over a store of noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
import numpy as np

from wbc_jax.config import AugmentConfig
from wbc_jax.data.order import OrderSpec, rows_for_step
from wbc_jax.data.packed import PackedStore
from wbc_jax.data.resident import ResidentData, load_resident
from wbc_jax.data.stream import BatchStream, stream_batches
from wbc_jax.train.augment import AugmentSpec, augment
from wbc_jax.train.parallel import data_mesh, replicated, split_by_row


@dataclass(frozen=True)
class Feed:
    """A store as training sees it, on one device.

    Attributes:
        store: images.
        batch_size: images per step.
        workers: processes of the streaming loader; 0: none besides this one.
    """

    store: PackedStore
    batch_size: int
    workers: int

    @property
    def order(self) -> OrderSpec:
        return OrderSpec(seed=0, num_samples=len(self.store), batch_size=self.batch_size)

    @cached_property
    def mesh(self) -> Any:
        return data_mesh(jax.devices()[:1])

    def stream(self, steps: int) -> BatchStream:
        """Batches for so many steps; to be closed."""
        return stream_batches(
            self.store,
            np.arange(len(self.store)),
            self.store.samples.cell_class,
            self.store.samples.attributes,
            self.order,
            stop_step=steps,
            workers=self.workers,
            sharding=split_by_row(self.mesh),
        )

    def resident(self) -> ResidentData:
        """All images on the device."""
        return load_resident(
            self.store,
            np.arange(len(self.store)),
            self.store.samples.cell_class,
            self.store.samples.attributes,
            sharding=replicated(self.mesh),
        )

    def resident_sources(self) -> Iterator[tuple[Any, ...]]:
        """Arguments `(data, rows, mask)` of a step that gathers its batch on the device, for one step after another."""
        data, sharding, step = self.resident(), split_by_row(self.mesh), 0
        mask = jax.device_put(np.ones(self.batch_size, np.float32), sharding)
        while True:
            rows = rows_for_step(self.order, step).astype(np.int32)
            yield data, jax.device_put(rows, sharding), mask
            step += 1


def stream_is_possible() -> bool:
    """Whether grain, which the streaming loader is built on, is installed; says so where it is not."""
    try:
        import grain  # noqa: F401
    except ImportError:
        print("grain is not installed: the streaming loader is left out")
        return False
    return True


def default_augment(image_size_px: int) -> Any:
    """`(key, uint8 images) -> float32 images` with the strengths that training has by default."""
    chosen = AugmentConfig()
    spec = AugmentSpec(
        image_size_px=image_size_px,
        flip=chosen.flip,
        rotation_deg=chosen.rotation_deg,
        translation=chosen.translation,
        scale=chosen.scale,
        brightness=chosen.brightness,
        contrast=chosen.contrast,
        saturation=chosen.saturation,
        hue=chosen.hue,
        stain=chosen.stain,
    )
    return partial(augment, spec=spec)

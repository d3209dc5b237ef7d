"""Progressive image size: early epochs on shrunk images cost less, and the last ones see what evaluation sees.

A schedule is pairs `(until_epoch, image_size_px)`, both rising; behind the last pair images have their full size. A
shrunk image shows what the full one does, on fewer pixels: the store's image is averaged down before it is turned and
cropped. The size follows from the step alone, so a resumed run goes on with the right one, and each size has a
compiled step of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp

Schedule = tuple[tuple[float, int], ...]
Batches = Callable[[int], Iterator[tuple[Any, ...]]]


class CountingStep(Protocol):
    """What `StepBySize` asks of a compiled step."""

    @property
    def traces(self) -> int: ...
    @property
    def compiles_ahead(self) -> bool: ...
    def compile_for(self, *args: Any) -> None: ...
    def __call__(self, *args: Any) -> Any: ...


def image_size_at(schedule: Schedule, step: int, *, steps_per_epoch: int, image_size_px: int) -> int:
    """Side of the images of batch `step` (from 0), px; a part of an epoch is rounded to whole steps."""
    for until_epoch, size_px in schedule:
        if step < round(until_epoch * steps_per_epoch):
            return size_px
    return image_size_px


def all_image_sizes(schedule: Schedule, image_size_px: int) -> tuple[int, ...]:
    """Every size of a run in the order in which they come, px."""
    return (*(size for _, size in schedule), image_size_px)


def image_sizes_between(
    schedule: Schedule, start: int, stop: int, *, steps_per_epoch: int, image_size_px: int
) -> tuple[int, ...]:
    """The sizes of the batches `start <= step < stop` in the order in which they come, px."""
    switches = (round(until_epoch * steps_per_epoch) for until_epoch, _ in schedule)
    steps = (start, *(step for step in switches if start < step < stop))
    sizes = (
        image_size_at(schedule, step, steps_per_epoch=steps_per_epoch, image_size_px=image_size_px)
        for step in steps
    )
    return tuple(dict.fromkeys(sizes)) if start < stop else ()


def shrunk_store_px(store_size_px: int, size_px: int, full_size_px: int) -> int:
    """Side of a store's image for training at `size_px`: its crop shows what the crop of `full_size_px` does."""
    return max(size_px, round(store_size_px * size_px / full_size_px))


def shrink(images_u8: jax.Array, side_px: int) -> jax.Array:
    """uint8 `(B, S, S, C)` -> uint8 `(B, side_px, side_px, C)`, averaged over what is left out."""
    batch, _, _, channels = images_u8.shape
    images = images_u8.astype(jnp.float32)
    smaller = jax.image.resize(images, (batch, side_px, side_px, channels), "linear", antialias=True)
    # Whole grey levels, as a store of that size has them: augmentation holds uint8 images within their range.
    return jnp.round(smaller).astype(jnp.uint8)


def sized_batches(
    batches: Batches, schedule: Schedule, *, steps_per_epoch: int, image_size_px: int
) -> Batches:
    """`batches`, each with the side of its images in front."""

    def sized(step: int) -> Iterator[tuple[Any, ...]]:
        for offset, batch in enumerate(batches(step)):
            size_px = image_size_at(
                schedule, step + offset, steps_per_epoch=steps_per_epoch, image_size_px=image_size_px
            )
            yield size_px, *batch

    return sized


class StepBySize:
    """One compiled step a size: `step(state, size_px, *source)`."""

    def __init__(self, steps: Mapping[int, CountingStep]) -> None:
        self._steps = dict(steps)

    @property
    def traces(self) -> int:
        """Times that any of them was traced; a whole run traces each size once."""
        return sum(step.traces for step in self._steps.values())

    @property
    def compiles_ahead(self) -> bool:
        """Whether `compile_for` is of use, as `CompiledStep` has it."""
        return all(step.compiles_ahead for step in self._steps.values())

    def compile_for(self, state: Any, size_px: int, *source: Any) -> None:
        """Compiles the step of one size without running it."""
        self._steps[size_px].compile_for(state, *source)

    def __call__(self, state: Any, size_px: int, *source: Any) -> Any:
        return self._steps[size_px](state, *source)

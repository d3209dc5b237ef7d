"""The training images on the devices themselves: one copy at the start, a gather inside the step ever after.

A white-blood-cell data set is a few GB as uint8 and fits on an accelerator many times over, so the input costs
nothing per step but the gather. The batches equal those of `stream` bit for bit, because both take their samples from
`order.rows_for_step`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from wbc_jax.data.batch import Batch
from wbc_jax.data.images import Images
from wbc_jax.data.placement import place
from wbc_jax.data.stream import ImageStore, check_samples

# Of what is free: the rest is for the model's activations. On a CPU the memory map is already in the page cache and
# gathers as fast, so a private copy is worth only a small share.
_DEVICE_SHARE = 0.5
_HOST_SHARE = 0.25
_CHUNK_BYTES = 64 << 20


@struct.dataclass
class ResidentData:
    """The n samples of a split, whole, on every device.

    Attributes:
        images: uint8 `(n, S, S, 3)`.
        labels: int32 `(n,)`.
        attributes: int32 `(n, 11)`.
        ids: int32 `(n,)`, row in the packed store.
        attribute_weights: float32 `(n,)`; None: 1 each.
    """

    images: Any
    labels: Any
    attributes: Any
    ids: Any
    attribute_weights: Any = None


def gather(data: ResidentData, positions: jax.Array, mask: jax.Array | None = None) -> Batch:
    """Take a batch out of resident data; pure, to be called inside the jitted step.

    Args:
        positions: int32 `(B,)`, samples in `range(n)`, as `order.rows_for_step` gives them. Split them over the
            devices and the batch is split the same way, without communication.
        mask: float32 `(B,)`, 0 for filling; None: all count.
    """

    def take(values: jax.Array) -> jax.Array:
        return values.at[positions].get(mode="clip")

    return Batch(
        images=take(data.images),
        labels=take(data.labels),
        attributes=take(data.attributes),
        mask=jnp.ones(positions.shape, jnp.float32) if mask is None else mask,
        ids=take(data.ids),
        attribute_weights=None if data.attribute_weights is None else take(data.attribute_weights),
    )


def resident_bytes(store: ImageStore, num_samples: int) -> int:
    """Return the device memory that the images of `num_samples` samples take, bytes."""
    return num_samples * int(np.prod(store.images.shape[1:]))


def load_resident(
    store: ImageStore,
    rows: np.ndarray,
    labels: np.ndarray,
    attributes: np.ndarray,
    *,
    attribute_weights: np.ndarray | None = None,
    sharding: jax.sharding.Sharding | None = None,
) -> ResidentData:
    """Copy the samples' images, labels and attributes to the devices.

    The host never holds more than one chunk of the images besides what lies on the devices, so peak memory is about
    one copy (on a CPU) or one chunk (on an accelerator).

    Args:
        store: its `images` are read, uint8 `(N, S, S, 3)`.
        rows: int `(n,)`, the store's row of each sample.
        labels: int32 `(n,)`.
        attributes: int32 `(n, 11)`.
        attribute_weights: float32 `(n,)`, weight of each sample's attributes in the loss; None: 1 each.
        sharding: replicated over the mesh; None: the default device.
    """
    rows, labels, attributes = check_samples(rows, labels, attributes)
    images = _copy_images(store.images, rows, sharding)
    small = (labels, attributes, rows.astype(np.int32))
    weights = None if attribute_weights is None else place(attribute_weights.astype(np.float32), sharding)
    return ResidentData(images, *(place(column, sharding) for column in small), attribute_weights=weights)


def _copy_images(images: Images, rows: np.ndarray, sharding: jax.sharding.Sharding | None) -> jax.Array:
    shape = (len(rows), *images.shape[1:])
    chunk = max(1, _CHUNK_BYTES // max(1, int(np.prod(shape[1:]))))
    whole = jnp.zeros(shape, jnp.uint8, device=sharding)
    # Donation lets each chunk be written in place: no second copy of the whole on the device.
    write = jax.jit(_write, donate_argnums=0, out_shardings=sharding)
    for start in range(0, len(rows), chunk):
        part = images[rows[start : start + chunk]]
        whole = write(whole, place(part, sharding), place(np.int32(start), sharding))
    return whole


def _write(whole: jax.Array, part: jax.Array, start: jax.Array) -> jax.Array:
    return jax.lax.dynamic_update_slice_in_dim(whole, part, start, 0)


def fits(num_bytes: int, devices: Sequence[Any]) -> tuple[bool, str]:
    """Say whether `num_bytes` of images may live on each of `devices`, and why, with the figures.

    An accelerator's free memory is its limit less what is in use; half of it may be taken. CPU devices share the
    host's memory, where each virtual device holds its own copy; a quarter of what is available may be taken.
    """
    if devices[0].platform == "cpu":
        import psutil

        needed, free, share = num_bytes * len(devices), psutil.virtual_memory().available, _HOST_SHARE
        where = "host memory"
    else:
        free, share, where, needed = _free_device_bytes(devices), _DEVICE_SHARE, "device memory", num_bytes
        if free is None:
            return False, f"{_gib(needed)} of images: the devices do not report their free memory"
    limit = int(free * share)
    verdict = "fit" if needed <= limit else "do not fit"
    reason = f"{_gib(needed)} of images {verdict} into {share:.0%} of {_gib(free)} available {where}"
    return needed <= limit, reason


def _free_device_bytes(devices: Sequence[Any]) -> int | None:
    free: list[int] = []
    for device in devices:
        stats = device.memory_stats()
        if not stats or "bytes_limit" not in stats or "bytes_in_use" not in stats:
            return None
        free.append(stats["bytes_limit"] - stats["bytes_in_use"])
    return min(free)


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.2f} GiB"

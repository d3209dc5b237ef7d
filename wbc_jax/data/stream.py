"""Batches streamed from the packed store: gathered on the host, sent to the devices as uint8 one step ahead.

The Grain data set is indexed by the training step and its element is a whole batch, because Grain's iterators lose
or reorder batches when they batch after sharding, and because one gather of many rows is far quicker than many reads
of one. Nothing random and no position lives in an iterator: a stream is rebuilt from any step.
"""

from __future__ import annotations

import gc
import math
import operator
from collections.abc import Iterator
from typing import Any, Protocol, SupportsIndex

import jax
import numpy as np

from wbc_jax.data.batch import Batch
from wbc_jax.data.images import Images, open_map, whole_map
from wbc_jax.data.order import OrderSpec, eval_batches, rows_for_step

# Grain starts 16 threads by default, which makes batches of this kind four times slower than none (performance.md 3).
_READ_THREADS = 0


class ImageStore(Protocol):
    """What the loaders need of a packed store."""

    @property
    def images(self) -> Images:
        """uint8 `(N, S, S, 3)`, usually a memory map."""
        ...


class StepSource:
    """Random access by training step: element `step` is that step's share of the batch, as host arrays.

    Crosses to worker processes by the file name of the memory map, not by its contents.
    """

    def __init__(
        self,
        images: Images,
        rows: np.ndarray,
        labels: np.ndarray,
        attributes: np.ndarray,
        order: OrderSpec,
        stop_step: int,
        share: slice,
        attribute_weights: np.ndarray | None = None,
    ) -> None:
        self._images, self._rows = images, rows
        self._labels, self._attributes = labels, attributes
        self._order, self._stop_step, self._share = order, stop_step, share
        self._attribute_weights = attribute_weights

    def __len__(self) -> int:
        return self._stop_step

    def __getitem__(self, index: SupportsIndex) -> dict[str, np.ndarray]:
        positions = rows_for_step(self._order, operator.index(index))[self._share]
        fields = _gather_host(self._images, self._rows, self._labels, self._attributes, positions)
        if self._attribute_weights is not None:
            fields["attribute_weights"] = self._attribute_weights[positions]
        return fields

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        if (facts := whole_map(self._images)) is not None:
            state["_images"] = None
            state["_map"] = facts
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        mapped = state.pop("_map", None)
        self.__dict__.update(state)
        if mapped is not None:
            self._images = open_map(mapped)


def _gather_host(
    images: Images,
    rows: np.ndarray,
    labels: np.ndarray,
    attributes: np.ndarray,
    positions: np.ndarray,
    mask: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    store_rows = rows[positions]
    return {
        "images": np.ascontiguousarray(images[store_rows]),
        "labels": labels[positions],
        "attributes": attributes[positions],
        "mask": np.ones(len(positions), np.float32) if mask is None else mask,
        "ids": store_rows.astype(np.int32),
    }


def _put(fields: dict[str, np.ndarray], sharding: jax.sharding.Sharding | None, processes: int) -> Batch:
    if sharding is None:
        return Batch(**jax.device_put(fields))
    if processes == 1:
        return Batch(**{name: jax.device_put(value, sharding) for name, value in fields.items()})
    return Batch(
        **{
            name: jax.make_array_from_process_local_data(
                sharding, value, (len(value) * processes, *value.shape[1:])
            )
            for name, value in fields.items()
        }
    )


def _mark_absl_flags_parsed() -> None:
    """Grain's worker processes read absl flags, which only an absl application parses."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()


class BatchStream(Iterator[Batch]):
    """Batches on the devices for the steps from `start_step` up to `stop_step`; see `stream_batches`.

    The transfer of the next batch is under way before the current one is handed out. Use it as a context manager or
    call `close`, which ends the worker processes.
    """

    def __init__(
        self,
        source: StepSource,
        start_step: int,
        workers: int,
        sharding: jax.sharding.Sharding | None,
        processes: int,
    ) -> None:
        import grain

        self._sharding, self._processes, self._in_shared_memory = sharding, processes, workers > 0
        steps = grain.MapDataset.source(source)[start_step : len(source)]
        batches = steps.to_iter_dataset(grain.ReadOptions(num_threads=_READ_THREADS, prefetch_buffer_size=2))
        if workers > 0:
            _mark_absl_flags_parsed()
            batches = batches.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
        self._iterator: Any = iter(batches)
        if workers > 0:
            self._iterator.start_prefetch()  # they take seconds to start: let them do so while the model compiles
        self._ahead: Batch | None = None
        self._closed = False

    def _fetch(self) -> Batch | None:
        fields = None if self._closed else next(self._iterator, None)
        if fields is None:
            return None
        if self._in_shared_memory:
            # A CPU device would keep the worker's shared memory itself, long after the iterator is closed.
            fields = {name: np.array(value) for name, value in fields.items()}
        return _put(fields, self._sharding, self._processes)

    def __next__(self) -> Batch:
        current = self._ahead or self._fetch()
        self._ahead = self._fetch()
        if self._ahead is None:
            self.close()
        if current is None:
            raise StopIteration
        return current

    def close(self) -> None:
        """End the worker processes and free the batch held ahead; iteration is over after this."""
        if not self._closed:
            self._closed = True
            self._ahead = None
            self._iterator.close()
            self._iterator = None
            if self._in_shared_memory:
                # Grain's reading thread ends in a reference cycle that holds the last batch: unless it is collected
                # now, the interpreter's exit reports its shared memory as leaked.
                gc.collect()

    def __enter__(self) -> BatchStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def stream_batches(
    store: ImageStore,
    rows: np.ndarray,
    labels: np.ndarray,
    attributes: np.ndarray,
    order: OrderSpec,
    *,
    start_step: int = 0,
    stop_step: int,
    attribute_weights: np.ndarray | None = None,
    workers: int = 0,
    sharding: jax.sharding.Sharding | None = None,
    process_index: int = 0,
    process_count: int = 1,
) -> BatchStream:
    """Stream the training batches of the steps `start_step <= step < stop_step`.

    Args:
        store: its `images` are read, uint8 `(N, S, S, 3)`.
        rows: int `(n,)`, the store's row of each training sample; a row may occur more than once.
        labels: int32 `(n,)`, label of each training sample.
        attributes: int32 `(n, 11)`, attributes of each training sample, -1 where not annotated.
        attribute_weights: float32 `(n,)`, weight of each sample's attributes in the loss; None: 1 each.
        order: which samples each step takes; `order.num_samples` must be n.
        workers: processes that gather batches; 0 gathers in this one.
        sharding: how a batch lies on the devices, split along its first axis; None: on the default device.
        process_index, process_count: this process gathers only its contiguous share of each batch.

    Returns:
        An iterator of `Batch` on the devices, to be closed after use.

    Raises:
        ValueError: if lengths, steps or the process share do not fit.
    """
    rows, labels, attributes = check_samples(rows, labels, attributes)
    if len(rows) != order.num_samples:
        raise ValueError(f"the order is for {order.num_samples} samples, but there are {len(rows)}")
    if not 0 <= start_step <= stop_step:
        raise ValueError(f"steps must satisfy 0 <= start <= stop, got {start_step} and {stop_step}")
    share = _share(order.batch_size, process_index, process_count)
    source = StepSource(store.images, rows, labels, attributes, order, stop_step, share, attribute_weights)
    return BatchStream(source, start_step, workers, sharding, process_count)


def eval_stream(
    store: ImageStore,
    rows: np.ndarray,
    labels: np.ndarray,
    attributes: np.ndarray,
    batch_size: int,
    *,
    sharding: jax.sharding.Sharding | None = None,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
    """Yield every sample once, in order, in batches of `batch_size` on the devices; filling has mask 0.

    Arguments as in `stream_batches`, but a batch has up to one image per device more than `batch_size`: each device,
    and so each process, takes an equal share of it. The transfer of the next batch starts before the current one is
    handed out.
    """
    rows, labels, attributes = check_samples(rows, labels, attributes)
    devices = 1 if sharding is None else len(sharding.device_set)
    batch_size = math.ceil(batch_size / devices) * devices
    share = _share(batch_size, process_index, process_count)
    ahead: Batch | None = None
    for positions, mask in eval_batches(len(rows), batch_size):
        fields = _gather_host(store.images, rows, labels, attributes, positions[share], mask[share])
        batch = _put(fields, sharding, process_count)
        if ahead is not None:
            yield ahead
        ahead = batch
    if ahead is not None:
        yield ahead


def _share(batch_size: int, process_index: int, process_count: int) -> slice:
    """This process's rows of each batch."""
    if batch_size % process_count or not 0 <= process_index < process_count:
        raise ValueError(f"a batch of {batch_size} has no share {process_index} of {process_count} processes")
    local = batch_size // process_count
    return slice(process_index * local, (process_index + 1) * local)


def check_samples(
    rows: np.ndarray, labels: np.ndarray, attributes: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows int64 `(n,)`, labels int32 `(n,)`, attributes int32 `(n, A)`.

    Raises:
        ValueError: if their shapes are others.
    """
    rows = np.asarray(rows, np.int64)
    labels, attributes = np.asarray(labels, np.int32), np.asarray(attributes, np.int32)
    if (
        rows.ndim != 1
        or labels.shape != rows.shape
        or attributes.shape[:1] != rows.shape
        or attributes.ndim != 2
    ):
        raise ValueError(
            f"rows (n,), labels (n,) and attributes (n, A) expected, got {rows.shape}, {labels.shape}, "
            f"{attributes.shape}"
        )
    return rows, labels, attributes

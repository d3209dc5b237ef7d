"""Stream and resident loaders: the same batch, bit for bit, for each step, however it is reached (promise R4)."""

from __future__ import annotations

import dataclasses
import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from wbc_jax.data import resident
from wbc_jax.data.batch import Batch
from wbc_jax.data.order import OrderSpec, rows_for_step
from wbc_jax.data.stream import StepSource, eval_stream, stream_batches
from wbc_jax.train.parallel import data_mesh, split_by_row

SIZE_PX, STORE_COUNT = 6, 23
ROWS = np.array([3, 1, 4, 15, 9, 2, 6, 5, 22, 8, 7, 19, 0])  # the training split of the store
ORDER = OrderSpec(seed=5, num_samples=len(ROWS), batch_size=4)
STEPS = 3 * ORDER.steps_per_epoch
LABELS = np.arange(len(ROWS), dtype=np.int32) % 5
ATTRIBUTES = np.arange(len(ROWS) * 11, dtype=np.int32).reshape(-1, 11) % 4 - 1


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("store") / "images.u8"
    shape = (STORE_COUNT, SIZE_PX, SIZE_PX, 3)
    np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8).tofile(path)
    return SimpleNamespace(images=np.memmap(path, np.uint8, mode="r", shape=shape))


def split_over(count: int) -> NamedSharding:
    mesh = jax.make_mesh((count,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:count])
    return NamedSharding(mesh, PartitionSpec("data"))


def on_host(batch: Batch) -> dict[str, np.ndarray]:
    fields = {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
    return {name: np.asarray(value) for name, value in fields.items() if value is not None}


def assert_same(actual: list[dict[str, np.ndarray]], expected: list[dict[str, np.ndarray]]) -> None:
    assert len(actual) == len(expected)
    for one, other in zip(actual, expected, strict=True):
        for name in other:
            assert one[name].dtype == other[name].dtype, name
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)


@pytest.fixture(scope="module")
def expected(store: Any) -> list[dict[str, np.ndarray]]:
    """The batches by the plainest means: indexing sample by sample."""
    batches = []
    for step in range(STEPS):
        chosen = rows_for_step(ORDER, step)
        batches.append(
            {
                "images": np.stack([np.array(store.images[ROWS[i]]) for i in chosen]),
                "labels": np.array([LABELS[i] for i in chosen], np.int32),
                "attributes": np.array([ATTRIBUTES[i] for i in chosen], np.int32),
                "mask": np.ones(4, np.float32),
                "ids": np.array([ROWS[i] for i in chosen], np.int32),
            }
        )
    return batches


def streamed(store: Any, *, start_step: int, workers: int = 0) -> list[dict[str, np.ndarray]]:
    with stream_batches(
        store, ROWS, LABELS, ATTRIBUTES, ORDER, start_step=start_step, stop_step=STEPS, workers=workers
    ) as batches:
        return [on_host(batch) for batch in batches]


def test_stream_equals_plain_indexing_from_every_step(store: Any, expected: list) -> None:
    for start in range(STEPS + 1):
        assert_same(streamed(store, start_step=start), expected[start:])


@pytest.mark.parametrize("workers", [1, 2])
def test_worker_processes_change_nothing(store: Any, expected: list, workers: int) -> None:
    assert_same(streamed(store, start_step=4, workers=workers), expected[4:])


@pytest.mark.parametrize("devices", [1, 2, 4])
def test_split_stream(store: Any, expected: list, devices: int) -> None:
    sharding = split_over(devices)
    with stream_batches(
        store, ROWS, LABELS, ATTRIBUTES, ORDER, stop_step=STEPS, sharding=sharding
    ) as batches:
        for step, batch in enumerate(batches):
            assert batch.images.sharding == sharding
            assert_same([on_host(batch)], [expected[step]])


@pytest.mark.parametrize("devices", [None, 1, 2, 4])
def test_resident_equals_stream(
    store: Any, expected: list, devices: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        resident, "_CHUNK_BYTES", 4 * SIZE_PX * SIZE_PX * 3
    )  # 13 samples in chunks of 4, 4, 4, 1
    split = None if devices is None else split_over(devices)
    replicated = None if split is None else NamedSharding(split.mesh, PartitionSpec())
    data = resident.load_resident(store, ROWS, LABELS, ATTRIBUTES, sharding=replicated)
    traces = 0

    def counted(data: resident.ResidentData, positions: jax.Array) -> Batch:
        nonlocal traces
        traces += 1
        return resident.gather(data, positions)

    gather = jax.jit(counted, out_shardings=split)
    for step in range(STEPS):
        positions = jax.device_put(rows_for_step(ORDER, step).astype(np.int32), split)
        batch = gather(data, positions)
        assert_same([on_host(batch)], [expected[step]])
    assert traces == 1


@pytest.mark.parametrize("workers", [0, 1])
def test_weights_of_attributes_travel_with_their_samples(store: Any, expected: list, workers: int) -> None:
    weights = np.linspace(0, 1, len(ROWS), dtype=np.float32)
    data = resident.load_resident(store, ROWS, LABELS, ATTRIBUTES, attribute_weights=weights)
    with stream_batches(
        store, ROWS, LABELS, ATTRIBUTES, ORDER, stop_step=STEPS, attribute_weights=weights, workers=workers
    ) as batches:
        for step, batch in enumerate(batches):
            chosen = rows_for_step(ORDER, step)
            gathered = resident.gather(data, np.asarray(chosen, np.int32))
            for found in (batch, gathered):
                np.testing.assert_array_equal(found.attribute_weights, weights[chosen])
                np.testing.assert_array_equal(found.ids, expected[step]["ids"])


def test_split_gather_needs_no_communication(store: Any) -> None:
    split = split_over(4)
    replicated = NamedSharding(split.mesh, PartitionSpec())
    data = resident.load_resident(store, ROWS, LABELS, ATTRIBUTES, sharding=replicated)
    positions = jax.device_put(np.zeros(4, np.int32), split)
    program = jax.jit(resident.gather, out_shardings=split).lower(data, positions).compile().as_text()
    assert program is not None
    assert "gather" in program
    assert not [word for word in ("all-gather", "all-reduce", "all-to-all", "permute(") if word in program]


PROCESS_SCRIPT = """
import sys
import jax
jax.distributed.initialize({address!r}, num_processes=2, process_id=int(sys.argv[1]))
import numpy as np
from types import SimpleNamespace
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from wbc_jax.data.order import OrderSpec
from wbc_jax.data.stream import stream_batches

images = np.memmap({path!r}, np.uint8, mode="r", shape={shape})
n = len(images)
order = OrderSpec(seed=0, num_samples=n, batch_size=4)
mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
with stream_batches(
    SimpleNamespace(images=images), np.arange(n), np.zeros(n), np.zeros((n, 11)), order, stop_step=2,
    sharding=NamedSharding(mesh, PartitionSpec("data")),
    process_index=jax.process_index(), process_count=jax.process_count(),
) as batches:
    for batch in batches:
        (shard,) = batch.ids.addressable_shards
        print(batch.images.shape, shard.index[0].start or 0, shard.data.tolist())
"""


def test_two_processes_each_hold_their_share(store: Any, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    script = PROCESS_SCRIPT.format(address=address, path=str(store.images.filename), shape=store.images.shape)
    environment = os.environ | {"XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    processes = []
    for index in range(2):
        command = [sys.executable, "-c", script, str(index)]
        with (tmp_path / f"{index}.log").open("w") as log:
            processes.append(
                subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True)
            )
    order = OrderSpec(seed=0, num_samples=STORE_COUNT, batch_size=4)
    for index, process in enumerate(processes):
        printed, _ = process.communicate(timeout=180)
        chosen = [rows_for_step(order, step)[2 * index : 2 * index + 2].tolist() for step in range(2)]
        expected = [f"(4, {SIZE_PX}, {SIZE_PX}, 3) {2 * index} {rows}" for rows in chosen]
        assert printed.splitlines() == expected, (tmp_path / f"{index}.log").read_text()


def test_process_shares_make_up_the_batch(store: Any, expected: list) -> None:
    shares = []
    for index in range(2):
        source = StepSource(
            store.images, ROWS, LABELS, ATTRIBUTES, ORDER, STEPS, slice(2 * index, 2 * index + 2)
        )
        shares.append([source[step] for step in range(STEPS)])
    joined = [{name: np.concatenate([a[name], b[name]]) for name in a} for a, b in zip(*shares, strict=True)]
    assert_same(joined, expected)


def test_evaluation_covers_each_sample_once_in_order(store: Any) -> None:
    batches = [on_host(batch) for batch in eval_stream(store, ROWS, LABELS, ATTRIBUTES, 5)]
    assert [batch["images"].shape for batch in batches] == [(5, SIZE_PX, SIZE_PX, 3)] * 3
    kept = {
        name: np.concatenate([batch[name][batch["mask"] == 1.0] for batch in batches]) for name in batches[0]
    }
    np.testing.assert_array_equal(kept["ids"], ROWS)
    np.testing.assert_array_equal(kept["labels"], LABELS)
    np.testing.assert_array_equal(kept["images"], store.images[ROWS])


def test_evaluation_batches_are_filled_up_to_an_equal_share_for_each_device(store: Any) -> None:
    sharding = split_by_row(data_mesh())
    devices = jax.device_count()
    assert devices > 1
    batches = list(eval_stream(store, ROWS, LABELS, ATTRIBUTES, devices + 1, sharding=sharding))
    assert {batch.images.shape[0] for batch in batches} == {2 * devices}
    kept = np.concatenate([np.asarray(batch.ids)[np.asarray(batch.mask) == 1.0] for batch in batches])
    np.testing.assert_array_equal(kept, ROWS)


def test_one_transfer_is_ahead_and_none_after_closing(store: Any) -> None:
    class Counting:
        reads = 0

        @property
        def images(self) -> Counting:
            return self

        shape = store.images.shape

        def __getitem__(self, rows: np.ndarray) -> np.ndarray:
            Counting.reads += 1
            return store.images[rows]

    counting: Any = Counting()
    batches = stream_batches(counting, ROWS, LABELS, ATTRIBUTES, ORDER, stop_step=STEPS)
    next(batches)
    assert Counting.reads == 2
    next(batches)
    assert Counting.reads == 3
    batches.close()
    batches.close()
    with pytest.raises(StopIteration):
        next(batches)
    assert Counting.reads == 3


def test_a_store_travels_to_workers_by_name(store: Any) -> None:
    images = np.memmap(store.images.filename, np.uint8, mode="r", offset=108, shape=(22, SIZE_PX, SIZE_PX, 3))
    rows = np.arange(len(ROWS))
    for view in (images, images[2:], np.array(images)):
        source = StepSource(view, rows, LABELS, ATTRIBUTES, ORDER, STEPS, slice(0, 4))
        pickled = pickle.dumps(source)
        copy = pickle.loads(pickled)
        assert_same([copy[3]], [source[3]])
        if view is images:
            assert isinstance(copy._images, np.memmap)


SCRIPT = """
import os, time
import numpy as np
from types import SimpleNamespace
from typing import Any
from multiprocessing.shared_memory import SharedMemory
from wbc_jax.data.order import OrderSpec
from wbc_jax.data.stream import stream_batches

opened = set()
plain_init = SharedMemory.__init__
def recording_init(self, *args, **kwargs):
    plain_init(self, *args, **kwargs)
    opened.add(self.name)
SharedMemory.__init__ = recording_init

images = np.memmap({path!r}, np.uint8, mode="r", shape={shape})
n = len(images)
order = OrderSpec(seed=0, num_samples=n, batch_size=4)
batches = stream_batches(
    SimpleNamespace(images=images), np.arange(n), np.zeros(n), np.zeros((n, 11)), order, stop_step=9, workers=1
)
kept = [next(batches) for _ in range({taken})]
batches.close()
deadline = time.monotonic() + 20
while any(os.path.exists("/dev/shm/" + name) for name in opened) and time.monotonic() < deadline:
    time.sleep(0.02)
print(len(kept), len(opened) > 0, [name for name in opened if os.path.exists("/dev/shm/" + name)])
"""


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="looks for shared memory where Linux shows it")
@pytest.mark.parametrize("taken", [2, 9])
def test_workers_run_from_a_plain_script_and_leave_nothing(store: Any, taken: int) -> None:
    """Outside an absl application Grain's workers ask for parsed flags; closed, they must let go of their memory."""
    script = SCRIPT.format(path=str(store.images.filename), shape=store.images.shape, taken=taken)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == f"{taken} True []", done.stderr


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": ROWS[:-1]}, "rows"),
        ({"order": OrderSpec(seed=0, num_samples=5, batch_size=2)}, "5 samples"),
        ({"start_step": 3, "stop_step": 2}, "start"),
        ({"process_index": 0, "process_count": 3}, "share"),
        ({"process_index": 2, "process_count": 2}, "share"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(store: Any, changes: dict, message: str) -> None:
    arguments = {"rows": ROWS, "labels": LABELS, "attributes": ATTRIBUTES, "order": ORDER, "stop_step": STEPS}
    with pytest.raises(ValueError, match=message):
        stream_batches(store, **(arguments | changes))


class FakeDevice(SimpleNamespace):
    platform = "gpu"

    def memory_stats(self) -> dict[str, int] | None:
        return self.stats


def test_fits_measures_the_device_with_least_room() -> None:
    roomy = FakeDevice(stats={"bytes_limit": 100 << 30, "bytes_in_use": 20 << 30})
    tight = FakeDevice(stats={"bytes_limit": 10 << 30, "bytes_in_use": 4 << 30})
    assert resident.fits(4 << 30, [roomy]) == (
        True,
        "4.00 GiB of images fit into 50% of 80.00 GiB available device memory",
    )
    fit, reason = resident.fits(4 << 30, [roomy, tight])
    assert not fit
    assert reason == "4.00 GiB of images do not fit into 50% of 6.00 GiB available device memory"
    fit, reason = resident.fits(1, [FakeDevice(stats=None)])
    assert not fit
    assert "do not report" in reason


def test_fits_counts_a_copy_for_each_virtual_device(monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=16 << 30))
    assert resident.fits(3 << 30, jax.devices()[:1])[0]
    fit, reason = resident.fits(3 << 30, jax.devices()[:2])
    assert not fit
    assert reason == "6.00 GiB of images do not fit into 25% of 16.00 GiB available host memory"


def test_resident_bytes(store: Any) -> None:
    assert resident.resident_bytes(store, 13) == 13 * SIZE_PX * SIZE_PX * 3

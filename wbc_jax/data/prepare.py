"""Raw folder to packed store: scanned, written by the TFDS builder, decoded, made square. Done once.

Everything lies in one folder of the cache per data set and raw folder: `tfds/` (the builder's records),
`source.json` (what the raw folder held, and what was left out), and per size and framing `store-256px-squash/` with
`store-256px-squash.json` (for which state of the raw folder it was made). Both stages end with a rename, so an
interrupted or failed preparation leaves nothing half done. Memory does not grow with the number of images.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from wbc_jax.data.datasets.scan import Flaw
from wbc_jax.data.framing import Framing
from wbc_jax.data.ingest import Progress, count_usable, framed_samples, write_records
from wbc_jax.data.packed import StoreWriter
from wbc_jax.data.registry import builder_class, cache_root, dataset_info, find_raw
from wbc_jax.errors import DataError
from wbc_jax.runtime.json_files import read_json, write_json

if TYPE_CHECKING:
    from wbc_jax.data.datasets.base import SmearBuilder

SOURCE_FILE = "source.json"
_LISTED_FLAWS = 200


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a data set's files are.

    Attributes:
        name: data set.
        raw: its raw folder; for a data set that is drawn, an empty path.
        home: its folder in the cache.
    """

    name: str
    raw: Path
    home: Path

    def store(self, size_px: int, framing: Framing) -> Path:
        """Directory of the packed store."""
        return self.home / f"store-{size_px}px-{framing}"


def locate(name: str, *, raw_dir: str | Path | None = None, cache_dir: str | Path | None = None) -> Place:
    """Raw folder and cache folder of a data set; DataError when the raw folder cannot be found."""
    root = cache_root(cache_dir)
    if dataset_info(name).generated:
        return Place(name=name, raw=Path(), home=root / name)
    raw = find_raw(name, raw_dir)
    key = hashlib.sha256(str(raw).encode()).hexdigest()[:8]  # two folders of own images stay apart
    return Place(name=name, raw=raw, home=root / f"{name}-{key}")


def prepare(
    name: str,
    *,
    raw_dir: str | Path | None = None,
    cache_dir: str | Path | None = None,
    size_px: int = 256,
    framing: Framing = "squash",
    on_bad_image: Literal["stop", "skip"] = "stop",
    processes: int = 0,
    progress: Progress | None = None,
) -> Path:
    """The packed store of a data set, made now unless it is there and the raw files are unchanged.

    Args:
        name: data set.
        raw_dir: folder with the raw files; None: $WBC_DATA_DIR.
        cache_dir: folder for stores; None: $WBC_CACHE_DIR or the user's cache directory.
        size_px: side of the store's square images.
        framing: how images become square.
        on_bad_image: what images that cannot be used (damaged, of contradictory class) lead to: an error that
            lists them all, or a store without them.
        processes: that decode; 0: threads of this one. A script that asks for processes needs the usual
            `if __name__ == "__main__":`, as they import it. The store is the same for any number.
        progress: called as images are done; None: a bar on the terminal.

    Returns:
        The store's directory.

    Raises:
        DataError: no raw files, images that cannot be used, or a cache that cannot be written.
    """
    place = locate(name, raw_dir=raw_dir, cache_dir=cache_dir)
    builder = builder_class(name)
    store = place.store(size_px, framing)
    with _readable_disk_errors(place.home):
        place.home.mkdir(parents=True, exist_ok=True)
        with _only_one_process(place.home):
            digest = builder.source_digest(place.raw)
            stamp_file = store.with_name(f"{store.name}.json")
            stamp = _read_note(stamp_file, digest) if store.is_dir() else None
            if stamp is None:
                with _shown(progress, name) as show:
                    stamp = _prepare_now(
                        place, builder, digest, size_px, framing, on_bad_image, processes, show
                    )
                write_json(stamp_file, stamp)
            bad = [Flaw(**flaw) for flaw in stamp["bad_images"]]
    if bad and on_bad_image == "stop":
        raise bad_images(name, bad)
    return store


def bad_images(name: str, flaws: Iterable[Flaw]) -> DataError:
    """One error that lists every image that cannot be used, with its reason."""
    flaws = list(flaws)
    lines = [f"{flaw.id}: {flaw.reason}" for flaw in flaws[:_LISTED_FLAWS]]
    if len(flaws) > _LISTED_FLAWS:
        lines.append(f"and {len(flaws) - _LISTED_FLAWS} more")
    return DataError(
        f"{len(flaws)} of the images of {name} cannot be used:\n  " + "\n  ".join(lines),
        expected="whole JPEG, PNG, BMP or TIFF images up to 25 MP, each in one class",
        remedy=f"replace or remove these files, or leave them out: "
        f"wbc-jax data prepare {name} --on-bad-image skip",
    )


def _read_note(path: Path, digest: str) -> dict[str, Any] | None:
    """A note of this module, if it is about the present raw files; anything else is of no use any more."""
    if not path.is_file():
        return None
    try:
        note = read_json(path)
    except DataError:
        return None
    return note if isinstance(note, dict) and note.get("source_digest") == digest else None


def _prepare_now(
    place: Place,
    builder: type[SmearBuilder],
    digest: str,
    size_px: int,
    framing: Framing,
    on_bad_image: str,
    processes: int,
    show: Progress,
) -> dict[str, Any]:
    """Both stages; returns the note to be kept beside the store."""
    source_file, records_dir = place.home / SOURCE_FILE, place.home / "tfds"
    source = _read_note(source_file, digest)
    if source is None or not builder(data_dir=str(records_dir)).is_prepared():
        source_file.unlink(missing_ok=True)
        shutil.rmtree(records_dir, ignore_errors=True)  # of other raw files, or of a broken-off attempt
        source = {
            "source_digest": digest,
            **write_records(builder(data_dir=str(records_dir)), place.raw, show),
        }
        write_json(source_file, source)
    records = builder(data_dir=str(records_dir))
    bad = [Flaw(**flaw) for flaw in source["problems"]]
    store = place.store(size_px, framing)
    store.with_name(f"{store.name}.json").unlink(missing_ok=True)
    with StoreWriter(
        store,
        size_px=size_px,
        framing=framing,
        dataset=place.name,
        class_names=tuple(source["classes"]),
        expected_count=count_usable(records),
    ) as writer:
        for result in framed_samples(
            records, size_px=size_px, framing=framing, show=show, processes=processes
        ):
            if isinstance(result, Flaw):
                bad.append(result)
            else:
                writer.add_framed(result, result.image)
        if bad and on_bad_image == "stop":
            raise bad_images(place.name, bad)
        writer.finish()
    return {"source_digest": digest, "bad_images": [asdict(flaw) for flaw in bad]}


@contextlib.contextmanager
def _readable_disk_errors(home: Path) -> Iterator[None]:
    """Turns a full, read-only or vanished cache disk into an error that names it."""
    reasons = {
        errno.ENOSPC: "the disk is full",
        errno.EDQUOT: "the disk quota is used up",
        errno.EROFS: "the disk is read-only",
        errno.EACCES: "no permission to write",
        errno.EPERM: "no permission to write",
        errno.ENOTDIR: "part of the path is a file",
        errno.EEXIST: "part of the path is a file",
    }
    try:
        yield
    except OSError as error:
        reason = reasons.get(error.errno or 0)
        if reason is None:
            raise
        raise DataError(
            f"the prepared data set cannot be written: {reason}",
            where=str(error.filename or home),
            remedy="make room, or use another folder with --data.cache-dir or WBC_CACHE_DIR",
        ) from error


@contextlib.contextmanager
def _only_one_process(home: Path) -> Iterator[None]:
    """Makes others that prepare the same data set wait. The lock ends with its process, however that ends."""
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        yield
        return
    with (home / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _shown(progress: Progress | None, name: str) -> Iterator[Progress]:
    """The caller's progress function, or a bar on the terminal."""
    if progress is not None:
        yield progress
        return
    from rich.console import Console
    from rich.progress import Progress as Bars

    with Bars(console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, Any] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(f"{name}: {stage}", total=total)
            bars.update(tasks[stage], completed=done)

        yield show

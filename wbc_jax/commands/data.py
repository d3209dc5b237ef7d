"""`wbc-jax data list | info | prepare | verify`: what there is, what lies where, and whether it is sound."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Column, Table

from wbc_jax.data.prepare import SOURCE_FILE, Place, locate
from wbc_jax.data.prepare import prepare as prepare_store
from wbc_jax.data.registry import DATASETS, DatasetInfo, cache_root, dataset_info, find_raw
from wbc_jax.data.samples import SOURCE_SPLITS
from wbc_jax.data.store import STORE_FILE, open_store, verify_store
from wbc_jax.errors import EXIT_DATA, EXIT_OK, DataError, UsageError
from wbc_jax.runtime.cpus import usable_cpus
from wbc_jax.runtime.json_files import read_json

_LISTED_FLAWS = 20


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Where files lie, and how they are prepared."""

    raw_dir: Path | None = None
    """Folder with the raw files; None: $WBC_DATA_DIR."""
    cache_dir: Path | None = None
    """Folder for prepared stores; None: $WBC_CACHE_DIR, else the user's cache directory."""
    store_size_px: int = 256
    """Side of the square images in the store, px."""
    framing: Literal["auto", "squash", "pad", "crop", "nucleus"] = "auto"
    """How an image becomes square; auto: as recommended for the data set."""
    on_bad_image: Literal["stop", "skip"] = "stop"
    """What images that cannot be used lead to: an error that lists them, or a store without them."""
    processes: int | None = None
    """Processes that decode; None: as many as CPUs; 0: threads of one process. The store is the same."""


def list_datasets() -> int:
    """Prints every data set: size, classes, whether its raw files are found and which stores are prepared."""
    # A name is what one types next: it is never cut.
    table = Table(
        Column("data set", no_wrap=True), "images", "classes", "raw files", "prepared", "what it is", box=None
    )
    for name, facts in DATASETS.items():
        table.add_row(
            name,
            f"{facts.expected_total:,}" if facts.expected_total else "",
            str(len(facts.classes)) if facts.classes else "",
            "not needed" if facts.generated else "found" if _raw_folder(name, DataOptions()) else "no",
            ", ".join(store.name.removeprefix("store-") for store in _stores(cache_root(), name)),
            facts.title,
        )
    console = _console()
    console.print(table)
    console.print("More about one: wbc-jax data info NAME", highlight=False)
    return EXIT_OK


def info(name: str, options: DataOptions) -> int:
    """Prints what is known about a data set, where it was looked for, and what the cache holds of it."""
    facts = dataset_info(name)
    console = _console()
    table = Table(box=None, show_header=False, title=facts.title, title_justify="left")
    table.add_column()
    table.add_column(overflow="fold")
    raw = None if facts.generated else _raw_folder(name, options)
    rows = {
        "source": facts.source,
        "cite": facts.citation,
        "licence": facts.licence,
        "layout": facts.layout,
        "classes": ", ".join(facts.classes) or "the folders' names",
        "split": f"{facts.protocol} (as the papers do), framing {facts.framing}",
        "raw files": "not needed" if facts.generated else str(raw or "not found"),
    }
    for key, value in rows.items():
        table.add_row(key, value)
    console.print(table, highlight=False)
    if raw is None and not facts.generated:
        try:
            find_raw(name, options.raw_dir)
        except DataError as error:
            console.print(f"\n{error}", highlight=False, markup=False, soft_wrap=True)
        return EXIT_OK
    _print_source(console, locate(name, raw_dir=options.raw_dir, cache_dir=options.cache_dir), facts)
    return EXIT_OK


def prepare(name: str, options: DataOptions) -> int:
    """Makes the packed store of a data set and prints what it holds and what was left out."""
    if options.processes is not None and options.processes < 0:
        raise UsageError(
            f"--processes {options.processes}", expected="0 or more", where="wbc-jax data prepare"
        )
    facts = dataset_info(name)
    framing = facts.framing if options.framing == "auto" else options.framing
    directory = prepare_store(
        name,
        raw_dir=options.raw_dir,
        cache_dir=options.cache_dir,
        size_px=options.store_size_px,
        framing=framing,
        on_bad_image=options.on_bad_image,
        processes=usable_cpus() if options.processes is None else options.processes,
    )
    console = _console()
    _print_source(console, locate(name, raw_dir=options.raw_dir, cache_dir=options.cache_dir), facts)
    store = open_store(directory)
    console.print(
        f"\nstore: {len(store):,} images of {store.size_px}x{store.size_px} px ({store.framing}), "
        f"{store.images.nbytes / 2**20:,.0f} MiB, digest {store.digest[:16]}\n{directory}",
        highlight=False,
        soft_wrap=True,
    )
    return EXIT_OK


def verify(name: str, options: DataOptions) -> int:
    """Reads stores again and compares them with their digests.

    Args:
        name: a data set, all of whose prepared stores are checked, or the directory of one store.
        options: `cache_dir` is used.

    Returns:
        0 when everything is sound, 3 otherwise.
    """
    path = Path(name)
    if name not in DATASETS and path.is_dir():
        stores = [path]
    else:
        dataset_info(name)
        stores = _stores(cache_root(options.cache_dir), name)
    if not stores:
        raise DataError(
            f"nothing is prepared of {name}",
            where=str(cache_root(options.cache_dir)),
            remedy=f"wbc-jax data prepare {name}",
        )
    console = _console()
    sound = True
    for store in stores:
        problems = verify_store(store)
        sound = sound and not problems
        if problems:
            verdict = "damaged\n  " + "\n  ".join(problems)
        else:
            opened = open_store(store)
            verdict = f"sound, {len(opened):,} images, digest {opened.digest[:16]}"
        console.print(f"{store}: {verdict}", highlight=False, markup=False, soft_wrap=True)
    return EXIT_OK if sound else EXIT_DATA


def missing(facts: DatasetInfo, source: dict[str, Any]) -> dict[str, int]:
    """Images per class that the full archive has and this one has not; duplicates that were left out are here."""
    here = Counter[str]()
    for row in source["counts"]:
        if row["source_split"] != facts.uncounted_split or not row["source_split"]:
            here[row["cell_class"]] += row["images"]
    for flaw in (*source["skipped"], *source["problems"]):
        here[flaw["cell_class"]] += 1
    return {name: n - here[name] for name, n in facts.expected.items() if n > here[name]}


def _print_source(console: Console, place: Place, facts: DatasetInfo) -> None:
    """Counts per class and split, what is missing from the full archive, what was left out and why."""
    file = place.home / SOURCE_FILE
    if not file.is_file():
        console.print(f"nothing prepared yet: wbc-jax data prepare {place.name}", highlight=False)
        return
    source = read_json(file)
    absent = missing(facts, source)
    counts = {(row["cell_class"], row["source_split"]): row["images"] for row in source["counts"]}
    present = {split for _, split in counts}
    splits = [s for s in (*SOURCE_SPLITS, *sorted(present - {*SOURCE_SPLITS, ""}), "") if s in present]
    table = Table("class", *[split or "no split" for split in splits], "all", box=None)
    if absent:
        table.add_column("missing")
    for name in source["classes"]:
        row = [counts.get((name, split), 0) for split in splits]
        table.add_row(
            name, *[f"{n:,}" for n in (*row, sum(row))], *([f"{absent.get(name, 0):,}"] * bool(absent))
        )
    console.print()
    console.print(table, highlight=False)
    unused = [split for split in splits if split not in (*SOURCE_SPLITS, "")]
    if unused:
        console.print(f"not in the store: {', '.join(unused)}", highlight=False)
    if facts.expected_total and not absent and source["images"] < facts.expected_total and not facts.expected:
        console.print(f"{source['images']:,} examples; the full archive has {facts.expected_total:,} images")
    for note in source["notes"]:
        console.print(note, highlight=False, markup=False)
    _print_flaws(console, "left out", source["skipped"])
    _print_flaws(console, "to be decided", source["problems"])


def _print_flaws(console: Console, title: str, flaws: list[dict[str, str]]) -> None:
    if not flaws:
        return
    console.print(f"{title}: {len(flaws)}")
    for flaw in flaws[:_LISTED_FLAWS]:
        console.print(f"  {flaw['id']}: {flaw['reason']}", highlight=False, markup=False, soft_wrap=True)
    if len(flaws) > _LISTED_FLAWS:
        console.print(f"  and {len(flaws) - _LISTED_FLAWS} more")


def _raw_folder(name: str, options: DataOptions) -> Path | None:
    if name == "image_folder" and options.raw_dir is None:
        return None  # any folder would do, so only one that is named counts
    try:
        return find_raw(name, options.raw_dir)
    except DataError:
        return None


def _stores(cache: Path, name: str) -> list[Path]:
    """Directories of the prepared stores of a data set, of whatever raw folder."""
    homes: Iterable[Path] = (
        [cache / name] if DATASETS[name].generated else sorted(cache.glob(f"{name}-????????"))
    )
    return [file.parent for home in homes for file in sorted(home.glob(f"store-*/{STORE_FILE}"))]


def _console() -> Console:
    return Console()

"""What lies in a raw folder: images with their labels, what is left out, and what needs a decision.

A builder's scan looks at names and tables only; `with_digests` then reads every file once for its SHA-256, and
`without_duplicates` acts on the digests. Nothing is decoded here.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from wbc_jax.catalog import ABSENT, ATTRIBUTES, canonical_class
from wbc_jax.data.decode import IMAGE_SUFFIXES

NO_ATTRIBUTES: tuple[int, ...] = (ABSENT,) * len(ATTRIBUTES)
SPLIT_FOLDERS: dict[str, str] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""Folder names, in lower case, that stand for a supplied split."""

_KEEP_FIRST = {"test": 0, "val": 1, "train": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class RawImage:
    """One example before it is read.

    Attributes:
        id: path relative to the data set's folder with forward slashes; `path#x0,y0,x1,y1` for a crop.
        path: the file.
        cell_class: name in the common vocabulary, or a folder's own name outside it.
        source_split: `train`, `val`, `test` as supplied, another name for images outside these, or "".
        group: source image, patient or slide; "" where unknown.
        attributes: 11 value indices in `catalog.ATTRIBUTES` order, -1 where not annotated.
        box: x0, y0, x1, y1 in pixels of the original when the example is a crop of it.
        sha256: digest of the original bytes; of these and the box for a crop.
    """

    id: str
    path: Path
    cell_class: str
    source_split: str = ""
    group: str = ""
    attributes: tuple[int, ...] = NO_ATTRIBUTES
    box: tuple[int, int, int, int] | None = None
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Flaw:
    """A file, box or table row that is not used as it stands, and why; with its class where that is known."""

    id: str
    reason: str
    cell_class: str = ""


@dataclass(kw_only=True)
class Scan:
    """Result of looking at a raw folder.

    Attributes:
        images: the examples, in the order of their ids.
        skipped: known and harmless flaws; left out and reported.
        problems: flaws that a person has to decide about; they stop a preparation unless told otherwise.
        notes: remarks about the whole, for example that an annotation table is absent.
    """

    images: list[RawImage] = field(default_factory=list)
    skipped: list[Flaw] = field(default_factory=list)
    problems: list[Flaw] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def walk_files(root: Path) -> Iterator[Path]:
    """All files under `root`, in a fixed order. Linked folders are followed, each real folder once."""
    seen: set[tuple[int, int]] = set()
    for folder, subfolders, names in os.walk(root, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            subfolders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        subfolders.sort()
        for name in sorted(names):
            yield Path(folder, name)


def listing_digest(root: Path, others: Sequence[Path] = ()) -> str:
    """SHA-256 over name, size and modification time of all files: changes whenever a source file does."""
    sha = hashlib.sha256()
    for path in (*walk_files(root), *others):
        name = path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
        try:
            status = path.stat()
        except OSError:  # a dangling link is listed, so that repairing it is noticed
            sha.update(f"{name}\0unreadable\n".encode())
            continue
        sha.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return sha.hexdigest()


def is_system_file(relative: Path) -> bool:
    """Files that operating systems and archivers leave behind, such as PBC's `.DS_Store` with a .jpg name."""
    return any(part.startswith(".") or part == "__MACOSX" or "DS_Store" in part for part in relative.parts)


def scan_class_folders(
    root: Path,
    *,
    classes: Sequence[str],
    splits: Mapping[str, str] = MappingProxyType(SPLIT_FOLDERS),
    ignored_folders: Sequence[str] = (),
) -> Scan:
    """Images in folders named after their class, with or without split folders above or below.

    Args:
        root: the data set's folder.
        classes: the cell classes of the data set; images in other folders are skipped with a reason.
        splits: lower-case folder name -> source split.
        ignored_folders: lower-case folder names to pass over (masks, mixed cells).
    """
    scan = Scan()
    for path in walk_files(root):
        relative = path.relative_to(root)
        folders = relative.parts[:-1]
        if not folders:
            continue
        name = relative.as_posix()
        if is_system_file(relative):
            scan.skipped.append(Flaw(name, "left behind by an operating system, not an image"))
            continue
        ignored = [folder for folder in folders if folder.lower() in ignored_folders]
        if ignored:
            scan.skipped.append(Flaw(name, f"folder {ignored[0]!r} is not used"))
            continue
        cell_class = _folder_class(folders, classes)
        if cell_class is None:
            if path.suffix.lower() in IMAGE_SUFFIXES:
                scan.skipped.append(Flaw(name, f"folder {folders[-1]!r} is not a class of this data set"))
            continue
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            scan.skipped.append(Flaw(name, f"not one of the formats read: {', '.join(IMAGE_SUFFIXES)}"))
            continue
        split = next((splits[folder.lower()] for folder in folders if folder.lower() in splits), "")
        scan.images.append(RawImage(id=name, path=path, cell_class=cell_class, source_split=split))
    return scan


def _folder_class(folders: Sequence[str], classes: Sequence[str]) -> str | None:
    """Class that the innermost telling folder stands for."""
    for folder in reversed(folders):
        common = canonical_class(folder)
        if common in classes:
            return common
    return None


def with_digests(scan: Scan, *, threads: int) -> Scan:
    """Fills in `sha256`; a file that cannot be read, or is empty, becomes a problem.

    Memory does not depend on the size of the files.
    """
    with ThreadPoolExecutor(threads) as pool:
        digests = list(pool.map(_file_digest, scan.images, chunksize=64))
    images, problems = [], []
    for image, digest in zip(scan.images, digests, strict=True):
        if isinstance(digest, Flaw):
            problems.append(digest)
        else:
            images.append(replace(image, sha256=digest))
    return replace(scan, images=images, problems=[*scan.problems, *problems])


def _file_digest(image: RawImage) -> str | Flaw:
    try:
        with image.path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            if file.tell() == 0:
                return Flaw(image.id, "empty file")
    except OSError as error:
        return Flaw(image.id, f"cannot be read: {error.strerror or error}")
    if image.box is None:
        return digest
    return hashlib.sha256(f"{digest}#{image.box}".encode()).hexdigest()


def without_duplicates(scan: Scan, *, known_conflicts: Iterable[frozenset[str]] = ()) -> Scan:
    """Leaves one of each set of byte-identical images, and none where their classes differ.

    Of identical images the one kept is in the supplied test set rather than val, train or none (so that no test
    image is lost and none leaks into training), then the one with attributes, then the first by id.

    Args:
        scan: images with digests.
        known_conflicts: file names of images known to be identical under different classes. They are skipped;
            any other conflict is a problem.
    """
    groups: dict[str, list[RawImage]] = {}
    for image in scan.images:
        groups.setdefault(image.sha256, []).append(image)
    known = set(known_conflicts)
    dropped: set[str] = set()
    skipped, problems = list(scan.skipped), list(scan.problems)
    for twins in groups.values():
        if len(twins) == 1:
            continue
        if len({image.cell_class for image in twins}) > 1:
            listed = ", ".join(f"{image.id} ({image.cell_class})" for image in twins)
            target = skipped if frozenset(image.path.name for image in twins) in known else problems
            reason = f"same bytes under different classes: {listed}"
            target.extend(Flaw(image.id, reason, image.cell_class) for image in twins)
            dropped.update(image.id for image in twins)
            continue
        kept, *rest = sorted(twins, key=_keep_order)
        skipped.extend(Flaw(image.id, f"duplicate of {kept.id}", image.cell_class) for image in rest)
        dropped.update(image.id for image in rest)
    images = [image for image in scan.images if image.id not in dropped]
    return replace(scan, images=images, skipped=skipped, problems=problems)


def _keep_order(image: RawImage) -> tuple[int, bool, str]:
    return _KEEP_FIRST.get(image.source_split, 3), image.attributes == NO_ATTRIBUTES, image.id

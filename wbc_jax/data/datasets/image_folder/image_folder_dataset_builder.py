"""The user's own images: folders that are named after their classes."""

from __future__ import annotations

import difflib
from pathlib import Path

from wbc_jax.catalog import canonical_class
from wbc_jax.data.datasets.base import SmearBuilder, manual_instructions
from wbc_jax.data.datasets.scan import (
    SPLIT_FOLDERS,
    Flaw,
    RawImage,
    Scan,
    is_system_file,
    walk_files,
)
from wbc_jax.data.decode import IMAGE_SUFFIXES


class Builder(SmearBuilder):
    """`<class>/…` or `train|val|test/<class>/…`.

    A folder between the class and the image is a group, such as a patient: `<class>/<group>/*.jpg`. Class folders
    get their common name where they have one (`Neutrophils` is `neutrophil`), and keep their own otherwise.
    """

    MANUAL_DOWNLOAD_INSTRUCTIONS = manual_instructions("image_folder")

    @classmethod
    def scan(cls, root: Path) -> Scan:
        scan = Scan()
        for path in walk_files(root):
            relative = path.relative_to(root)
            name = relative.as_posix()
            is_image = path.suffix.lower() in IMAGE_SUFFIXES
            split, inner = _split_and_folders(relative.parts[:-1])
            if is_system_file(relative):
                scan.skipped.append(Flaw(name, "left behind by an operating system, not an image"))
            elif not inner:
                if is_image:
                    scan.skipped.append(Flaw(name, "not in a class folder"))
            elif not is_image:
                scan.skipped.append(Flaw(name, f"not one of the formats read: {', '.join(IMAGE_SUFFIXES)}"))
            else:
                image = RawImage(
                    id=name,
                    path=path,
                    cell_class=canonical_class(inner[0]) or inner[0],
                    source_split=split,
                    group="/".join(inner[1:]),
                )
                scan.images.append(image)
        scan.problems.extend(_classes_without_training_images(scan))
        return scan


def _split_and_folders(folders: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """Supplied split, and the folders from the class on."""
    for position, folder in enumerate(folders):
        if folder.lower() in SPLIT_FOLDERS:
            return SPLIT_FOLDERS[folder.lower()], folders[position + 1 :]
    return "", folders


def _classes_without_training_images(scan: Scan) -> list[Flaw]:
    """Classes that occur in val or test only, most often a folder name with a slip."""
    trained = sorted({image.cell_class for image in scan.images if image.source_split == "train"})
    if not trained:
        return []
    flaws = []
    for image in scan.images:
        if image.cell_class in trained or image.source_split == "":
            continue
        close = difflib.get_close_matches(image.cell_class, trained, n=1)
        hint = f"; did you mean {close[0]}?" if close else f"; train has {', '.join(trained)}"
        flaws.append(Flaw(image.id, f"class {image.cell_class!r} has no training images{hint}"))
    return flaws

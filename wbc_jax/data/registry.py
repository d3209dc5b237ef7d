"""Data sets by name: their facts, their builder, and where their files and prepared stores lie on this machine."""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from wbc_jax.data.datasets.facts import DATASETS, DatasetInfo, Protocol
from wbc_jax.errors import DataError, UsageError

if TYPE_CHECKING:
    from wbc_jax.data.datasets.base import SmearBuilder

__all__ = [
    "DATASETS",
    "DatasetInfo",
    "builder_class",
    "cache_root",
    "dataset_info",
    "default_protocol",
    "find_raw",
    "raw_root",
]

RAW_VARIABLE = "WBC_DATA_DIR"
CACHE_VARIABLE = "WBC_CACHE_DIR"
_LISTED_NAMES = 8


def dataset_info(name: str) -> DatasetInfo:
    """Facts about a data set; UsageError with a suggestion for an unknown name."""
    if name in DATASETS:
        return DATASETS[name]
    close = difflib.get_close_matches(name, DATASETS, n=1)
    hint = f"did you mean {close[0]}?" if close else "`wbc-jax data list` shows all; your own: image_folder"
    raise UsageError(f"no data set {name!r}", expected=f"one of {', '.join(DATASETS)}", remedy=hint)


def builder_class(name: str) -> type[SmearBuilder]:
    """TFDS builder of a data set."""
    dataset_info(name)
    from wbc_jax.data.datasets.bccd_kaggle import bccd_kaggle_dataset_builder
    from wbc_jax.data.datasets.bccd_voc import bccd_voc_dataset_builder
    from wbc_jax.data.datasets.image_folder import image_folder_dataset_builder
    from wbc_jax.data.datasets.jtsc import jtsc_dataset_builder
    from wbc_jax.data.datasets.labelled import labelled_dataset_builder
    from wbc_jax.data.datasets.ldwbc import ldwbc_dataset_builder
    from wbc_jax.data.datasets.lisc import lisc_dataset_builder
    from wbc_jax.data.datasets.pbc import pbc_dataset_builder
    from wbc_jax.data.datasets.raabin import raabin_dataset_builder
    from wbc_jax.data.datasets.synthetic_smear import synthetic_smear_dataset_builder
    from wbc_jax.data.datasets.synthetic_smear_plain import synthetic_smear_plain_dataset_builder
    from wbc_jax.data.datasets.wbcs import wbcs_dataset_builder

    builders: dict[str, type[SmearBuilder]] = {
        "synthetic_smear": synthetic_smear_dataset_builder.Builder,
        "synthetic_smear_plain": synthetic_smear_plain_dataset_builder.Builder,
        "pbc": pbc_dataset_builder.Builder,
        "bccd_kaggle": bccd_kaggle_dataset_builder.Builder,
        "bccd_voc": bccd_voc_dataset_builder.Builder,
        "lisc": lisc_dataset_builder.Builder,
        "raabin": raabin_dataset_builder.Builder,
        "ldwbc": ldwbc_dataset_builder.Builder,
        "labelled": labelled_dataset_builder.Builder,
        "wbcs": wbcs_dataset_builder.Builder,
        "jtsc": jtsc_dataset_builder.Builder,
        "image_folder": image_folder_dataset_builder.Builder,
    }
    return builders[name]


def default_protocol(name: str, source_splits: Collection[str]) -> Protocol:
    """How to split a data set when the config says `auto`.

    The papers' protocol where the archive holds what it needs; a random 6:2:2 where the supplied test set, or
    for `given` the supplied training set, is absent.

    Args:
        name: data set.
        source_splits: the source splits that occur in the prepared store.
    """
    protocol = dataset_info(name).protocol
    needed = {"given": {"train", "test"}, "given_test": {"test"}}.get(protocol, set())
    if protocol == "given" and needed <= set(source_splits) and "val" not in source_splits:
        return "given_test"
    return protocol if needed <= set(source_splits) else "random_622"


def raw_root(raw_dir: str | Path | None = None) -> Path | None:
    """Folder where raw files are looked for: `raw_dir`, else $WBC_DATA_DIR; None when neither is set."""
    chosen = raw_dir if raw_dir is not None else os.environ.get(RAW_VARIABLE) or None
    return None if chosen is None else Path(chosen).expanduser()


def cache_root(cache_dir: str | Path | None = None) -> Path:
    """Folder of prepared stores: `cache_dir`, else $WBC_CACHE_DIR, else the user's cache directory."""
    chosen = cache_dir if cache_dir is not None else os.environ.get(CACHE_VARIABLE) or None
    if chosen is not None:
        return Path(chosen).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("wbc_jax", appauthor=False))


def find_raw(name: str, raw_dir: str | Path | None = None) -> Path:
    """The data set's own folder under `raw_dir` or $WBC_DATA_DIR, or that folder itself.

    Raises:
        DataError: no such folder, or none that holds what the data set's folder should hold.
    """
    facts = dataset_info(name)
    root = raw_root(raw_dir)
    example = "/path/to/folder"
    remedy = (
        f"get it from {facts.source}, unpack it, and point at it with --data.raw-dir {example} "
        f"(`wbc-jax data`: --raw-dir {example}) or {RAW_VARIABLE}={example}; the data set's own folder and the "
        "folder that holds it both do"
    )
    if root is None:
        raise DataError(
            f"no folder given for the raw files of {name} ({facts.title})",
            expected=facts.layout,
            where=f"neither --data.raw-dir nor {RAW_VARIABLE} is set",
            remedy=remedy,
        )
    looked_at = []
    for place in facts.folders:
        folder = root if place == "." else root / place
        reason = _why_not(folder, facts.landmarks)
        if reason is None:
            return folder.resolve()
        looked_at.append(f"{folder}: {reason}")
    raise DataError(
        f"no folder with {name} ({facts.title}) found",
        expected=facts.layout,
        where="looked at\n  " + "\n  ".join(looked_at),
        remedy=remedy,
    )


def _why_not(folder: Path, landmarks: tuple[str, ...]) -> str | None:
    """What speaks against `folder` being the data set's; None if nothing does."""
    if not folder.exists():
        return "not there"
    if not folder.is_dir():
        return "not a folder"
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    if not names:
        return "empty"
    if not landmarks or any(name.lower() in landmarks for name in names):
        return None
    more = f" and {len(names) - _LISTED_NAMES} more" if len(names) > _LISTED_NAMES else ""
    wanted = ", ".join(landmarks[:_LISTED_NAMES])
    return f"holds none of {wanted}; it holds {', '.join(names[:_LISTED_NAMES])}{more}"

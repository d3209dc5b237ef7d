"""The file of predicted attributes: `pseudo_labels.csv`, and beside it `pseudo_labels.json`, which seals it.

A row of the CSV is an image: its data set, id and SHA-256, and for each attribute the predicted value, empty where its
probability is below the threshold, and that probability. The JSON says which network predicted, on which parts of
which data sets, and holds the digest of the CSV.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wbc_jax.catalog import ABSENT, ATTRIBUTES, attribute_facts
from wbc_jax.errors import DataError
from wbc_jax.runtime.json_files import read_json, write_json

CSV_NAME = "pseudo_labels.csv"
_FORMAT, _VERSION = "wbc-jax pseudo-labels", 1
_COLUMNS = ("dataset", "id", "sha256", *(c for a in ATTRIBUTES for c in (a.name, f"{a.name}_probability")))
_REMEDY = "make the file again: `wbc-jax train` on its run directory does, once the file is removed"


@dataclass(frozen=True, kw_only=True)
class PseudoSource:
    """A data set with predicted attributes.

    Attributes:
        dataset: its name.
        task, split, split_seed, max_images_per_class, framing: as in `DataConfig`, how it was divided.
        store_digest: of its prepared images.
        split_digest: of its parts.
        images: number of images in the file.
        left_out: images of its training part that are not in the file: other cell classes, or held out elsewhere.
    """

    dataset: str
    task: str
    split: str
    split_seed: int
    max_images_per_class: int | None
    framing: str
    store_digest: str
    split_digest: str
    images: int
    left_out: int


@dataclass(frozen=True, kw_only=True, eq=False)
class PseudoLabels:
    """Predicted attributes of n images.

    Attributes:
        datasets: n names of data sets.
        ids: n names of images.
        sha256: n digests of their files.
        values: int32 `(n, 11)`, value indices in `catalog.ATTRIBUTES` order, -1 below the threshold.
        probabilities: float32 `(n, 11)`, of the most probable value.
        threshold: least probability of a value that counts.
        model_sha256: digest of the predicting network's arrays.
        sources: the data sets.
    """

    datasets: list[str]
    ids: list[str]
    sha256: list[str]
    values: np.ndarray
    probabilities: np.ndarray
    threshold: float
    model_sha256: str
    sources: tuple[PseudoSource, ...]


def write_pseudo_labels(path: Path, labels: PseudoLabels) -> str:
    """Writes both files, the JSON last: without it the CSV does not count. Returns the SHA-256 of the CSV."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for i, (dataset, name, digest) in enumerate(zip(labels.datasets, labels.ids, labels.sha256, strict=True)):
        cells = [dataset, name, digest]
        for attribute, value, probability in zip(
            ATTRIBUTES, labels.values[i], labels.probabilities[i], strict=True
        ):
            cells += ["" if value == ABSENT else attribute.values[value], f"{probability:.6f}"]
        writer.writerow(cells)
    data = text.getvalue().encode("utf-8", "surrogateescape")
    _facts_path(path).unlink(missing_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    sha256 = hashlib.sha256(data).hexdigest()
    write_json(
        _facts_path(path),
        {
            "format": _FORMAT,
            "version": _VERSION,
            "sha256": sha256,
            "threshold": labels.threshold,
            "model_sha256": labels.model_sha256,
            "attributes": attribute_facts(),
            "sources": [asdict(source) for source in labels.sources],
        },
    )
    return sha256


def file_digest(path: Path) -> str:
    """SHA-256 of the CSV as its JSON states it.

    Raises:
        DataError: there is no such JSON, or it is of another form.
    """
    return str(_read_facts(path)["sha256"])


def read_pseudo_labels(path: Path) -> PseudoLabels:
    """What `write_pseudo_labels` wrote.

    Raises:
        DataError: a file is missing, changed, of another version, or of another vocabulary.
    """
    facts = _read_facts(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(path), remedy=_REMEDY) from error
    found = hashlib.sha256(data).hexdigest()
    if found != facts["sha256"]:
        raise DataError(
            f"the file has digest {found[:16]}",
            expected=f"{str(facts['sha256'])[:16]}, as {_facts_path(path).name} states",
            where=str(path),
            remedy=_REMEDY,
        )
    rows = list(csv.DictReader(io.StringIO(data.decode("utf-8", "surrogateescape"), newline="")))
    try:
        return PseudoLabels(
            datasets=[row["dataset"] for row in rows],
            ids=[row["id"] for row in rows],
            sha256=[row["sha256"] for row in rows],
            values=np.array([[_value(row, a) for a in ATTRIBUTES] for row in rows], np.int32).reshape(-1, 11),
            probabilities=np.array(
                [[float(row[f"{a.name}_probability"]) for a in ATTRIBUTES] for row in rows], np.float32
            ).reshape(-1, 11),
            threshold=float(facts["threshold"]),
            model_sha256=str(facts["model_sha256"]),
            sources=tuple(PseudoSource(**source) for source in facts["sources"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"not in the form of pseudo-labels: {error}", where=str(path), remedy=_REMEDY
        ) from error


def _value(row: dict[str, str], attribute: Any) -> int:
    text = row[attribute.name]
    return ABSENT if text == "" else attribute.encode(text)


def _facts_path(path: Path) -> Path:
    return path.with_suffix(".json")


def _read_facts(path: Path) -> dict[str, Any]:
    facts = read_json(_facts_path(path))
    problem = None
    if not isinstance(facts, dict) or facts.get("format") != _FORMAT or facts.get("version") != _VERSION:
        problem = f"not a description of pseudo-labels of version {_VERSION}"
    elif facts.get("attributes") != attribute_facts():
        problem = "the attributes or their values are others, or in another order"
    elif missing := {"sha256", "threshold", "model_sha256", "sources"} - set(facts):
        problem = f"without {', '.join(sorted(missing))}"
    if problem is not None:
        raise DataError(problem, where=str(_facts_path(path)), remedy=_REMEDY)
    return facts

#!/usr/bin/env python3
"""How well copies of smear images are grouped by their pixels: `python benchmarks/fields.py --help`.

Two measures. Copies that the script makes itself from BCCD's originals (turned by up to 20 degrees on black, sheared,
shifted, mirrored, saved as JPEG), whose fields are known: pairs found of those there are, and pairs found that are
wrong. And the real Kaggle release as prepared: how often the class folder of a copy is among the classes that BCCD's
table gives the original it was matched with, which the matching does not see. Needs both sets under WBC_DATA_DIR.
"""

from __future__ import annotations

import csv
import io
import sys
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from PIL import Image
from skimage.transform import AffineTransform, warp

from wbc_jax.bench.arguments import run_from_command_line
from wbc_jax.bench.schema import describe_machine
from wbc_jax.config import DataConfig
from wbc_jax.data.datasets.bccd_kaggle.bccd_kaggle_dataset_builder import Builder
from wbc_jax.data.datasets.bccd_voc.bccd_voc_dataset_builder import image_classes
from wbc_jax.data.decode import read_image
from wbc_jax.data.experiment import open_prepared
from wbc_jax.data.keypoints import Field, describe
from wbc_jax.data.registry import find_raw
from wbc_jax.data.smear_fields import group_fields
from wbc_jax.errors import EXIT_OK


@dataclass(frozen=True, kw_only=True)
class FieldOptions:
    copies_of: Literal["both", "own", "kaggle"] = "both"
    """Copies to measure on: the script's own, the Kaggle release's, or both."""
    originals: int = 60
    """Originals to make copies of, spread over the set."""
    copies: int = 4
    """Copies of each; the original itself is not among the images that are grouped."""
    seed: int = 0
    """Of the copies' places."""
    store_size_px: int = 88
    """Prepared store of the real release to read groups from; they are the same at every size."""
    out: Path = Path("fields.csv")
    """Table, written anew."""


def measure(options: FieldOptions) -> int:
    """Groups copies made here and reads the groups of the real ones."""
    rows: dict[str, object] = {}
    if options.copies_of != "kaggle":
        rows |= _own_copies(options)
    if options.copies_of != "own":
        rows |= _kaggle_copies(options)
    machine = describe_machine()
    facts = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "commit": machine.commit}
    with options.out.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*facts, "measure", "value"])
        writer.writerows([*facts.values(), *row] for row in rows.items())
    for name, value in rows.items():
        print(f"{name}: {value}")
    return EXIT_OK


def _own_copies(options: FieldOptions) -> dict[str, object]:
    originals = Builder.annotation_files(find_raw("bccd_kaggle"))
    chosen = originals[:: max(1, len(originals) // options.originals)][: options.originals]
    rng = np.random.default_rng(options.seed)
    fields: list[Field] = []
    for path in chosen:
        picture = np.asarray(Image.fromarray(read_image(path)).resize((320, 240), Image.Resampling.BOX))
        fields += [_described(_copy(picture, rng)) for _ in range(options.copies)]
    truth = np.repeat(np.arange(len(chosen)), options.copies)
    roots = group_fields(fields)
    upper = np.triu(np.ones((len(fields), len(fields)), bool), 1)
    there = (truth[:, None] == truth[None, :]) & upper
    found = (roots[:, None] == roots[None, :]) & upper
    return {
        "own copies": len(fields),
        "of originals": len(chosen),
        "pairs of one field": int(there.sum()),
        "of these found": int((there & found).sum()),
        "pairs found of two fields": int((found & ~there).sum()),
    }


def _copy(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    height, width = picture.shape[:2]
    moved = AffineTransform(
        rotation=np.deg2rad(rng.uniform(-20, 20)),
        shear=np.deg2rad(rng.uniform(-10, 10)),
        translation=(rng.uniform(-0.12, 0.12) * width, rng.uniform(-0.12, 0.12) * height),
    )
    to_centre = AffineTransform(translation=(width / 2, height / 2))
    whole = AffineTransform(matrix=to_centre.params @ moved.params @ np.linalg.inv(to_centre.params))
    out = (warp(picture, whole.inverse, order=1) * 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(out[:: rng.choice([1, -1]), :: rng.choice([1, -1])]).save(buffer, "JPEG", quality=75)
    return np.asarray(Image.open(buffer))


def _described(picture: np.ndarray) -> Field:
    return describe(np.asarray(Image.fromarray(picture).resize((160, 120), Image.Resampling.BOX)))


def _kaggle_copies(options: FieldOptions) -> dict[str, object]:
    samples = open_prepared(DataConfig(dataset="bccd_kaggle", store_size_px=options.store_size_px)).samples
    table = image_classes(find_raw("bccd_voc"))
    sizes = Counter(group for group in samples.groups.tolist() if group)
    agree = known = 0
    for group, index in zip(samples.groups.tolist(), samples.cell_class, strict=True):
        classes = table.get(group, set())
        known += bool(classes)
        agree += samples.cell_classes[index] in classes
    supplied = samples.source_splits
    in_train = set(samples.groups[supplied == "train"].tolist()) - {""}
    test = samples.groups[supplied == "test"].tolist()
    leaking = (
        sum(group in in_train for group in test) if test else "not measured: no supplied test images here"
    )
    return {
        "Kaggle images": len(samples),
        "Kaggle images in a group": sum(sizes.values()),
        "Kaggle groups": len(sizes),
        "largest Kaggle group": max(sizes.values(), default=0),
        "Kaggle images grouped with an original whose class is known": known,
        "of these in a folder of that class": agree,
        "supplied test images": len(test),
        "of these with a copy of their field in supplied train": leaking,
    }


if __name__ == "__main__":
    sys.exit(run_from_command_line(FieldOptions, measure))

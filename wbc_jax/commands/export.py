"""`wbc-jax export`: a run for other programs, checked against the run on real images before it gets its name."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.export
import numpy as np

from wbc_jax.catalog import attribute_facts
from wbc_jax.commands.evaluate import own_samples
from wbc_jax.commands.image_files import find_images, read_images
from wbc_jax.commands.run import METRICS_FILE, LoadedRun, load_run, model_options, preprocessing_facts
from wbc_jax.data.decode import BadImage
from wbc_jax.errors import EXIT_OK, DataError, UsageError, WbcError
from wbc_jax.export import trunks
from wbc_jax.export.card import card_path, write_card
from wbc_jax.export.stablehlo import SUFFIX as STABLEHLO_SUFFIX
from wbc_jax.export.stablehlo import answer, read_program, write_stablehlo
from wbc_jax.models.compiler import jit
from wbc_jax.runtime.json_files import dumps_strict, read_json
from wbc_jax.runtime.provenance import collect_provenance
from wbc_jax.train.steps import Prediction
from wbc_jax.weights.load import load_variables, save_variables
from wbc_jax.weights.readers import SAFETENSORS_SUFFIX

TOLERANCE = 1e-4
"""Largest allowed difference of a class or attribute probability between the export and the run."""
CHECK_IMAGES = 16

_SUFFIXES = {
    "safetensors": (SAFETENSORS_SUFFIX,),
    "stablehlo": (STABLEHLO_SUFFIX,),
    "torch": trunks.SUFFIXES,
}
_PROVENANCE = (
    "commit",
    "dirty",
    "versions",
    "python",
    "device",
    "platform",
    "started",
    "arguments",
    "config_digest",
)


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Options of `wbc-jax export`."""

    format: Literal["safetensors", "stablehlo", "torch"]
    """safetensors: all weights under our names; stablehlo: one program, uint8 images in, probabilities out; torch: a
    state dict of each trunk under torchvision's names, timm's where torchvision lacks it."""
    out: Path
    """File to write: .safetensors, .stablehlo, or .pth; with a card, <out>.json, beside it. A network of several
    trunks gives a file each, such as <out>_resnet.pth."""
    check_images: tuple[Path, ...] = ()
    """Images, or folders of images, to compare the export on; none given: 16 of the run's own test images."""
    platforms: tuple[Literal["cpu", "cuda", "tpu"], ...] = ("cpu", "cuda", "tpu")
    """Where the StableHLO program should run."""
    overwrite: bool = False
    """Replace the output if it exists."""


@dataclass(frozen=True, kw_only=True)
class CheckImages:
    """What the export is compared on: uint8 `(n, S, S, 3)` and where they are from."""

    images: np.ndarray
    source: str


def export(run_dir: Path, options: ExportOptions) -> int:
    """Writes, reads back, compares, and only then names the files; returns the exit code.

    Raises:
        UsageError: options that cannot be, or a network that has no such form.
        DataError: no images to check on, or an export that answers differently from the run.
        WeightsError: torch is missing, or a write failed.
    """
    _check(options)
    run = load_run(run_dir)
    check = check_images(run, options.check_images)
    try:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=options.out.parent) as folder:
            draft = Path(folder) / options.out.name
            with jax.default_matmul_precision("highest"):
                files, facts, difference = _write_and_compare(run, options, draft, check)
            card = make_card(run) | facts | {"check": _check_facts(check, difference)}
            write_card(draft, card, files)
            for file in (*files, card_path(draft)):
                file.replace(options.out.with_name(file.name))
    except OSError as error:
        raise UsageError(
            f"cannot be written: {error.strerror or error}",
            where=str(options.out),
            remedy="make room or restore access, or choose another --out",
        ) from error
    names = ", ".join(str(options.out.with_name(file.name)) for file in files)
    print(f"written: {names} and {card_path(options.out)}")
    print(f"largest difference of a probability on {len(check.images)} {check.source}: {difference:.2e}")
    for platform, reason in facts.get("left_out", {}).items():
        print(f"not for {platform}: {reason}")
    if options.format == "stablehlo":
        print(f"next: wbc-jax predict {options.out} IMAGES --out predictions.csv")
    return EXIT_OK


def check_images(run: LoadedRun, paths: tuple[Path, ...]) -> CheckImages:
    """A few real images, framed as for the run.

    Raises:
        DataError, UsageError: there are none.
    """
    size = run.config.data.store_size_px
    if paths:
        files = find_images(paths)[:CHECK_IMAGES]
        framing: Any = run.framing
        read = read_images(files, size_px=size, framing=framing, on_bad_image="stop")
        pixels = [item[1] for item in read if not isinstance(item, BadImage)]
        return CheckImages(images=np.stack(pixels), source="images given")
    try:
        samples, _ = own_samples(run, "test")
    except WbcError as error:
        raise DataError(
            f"the run's test images cannot be read: {error.found}",
            where=error.where,
            remedy="restore the data set, or give real images with --check-images",
        ) from error
    chosen = np.unique(np.linspace(0, len(samples.rows) - 1, CHECK_IMAGES).round().astype(int))
    return CheckImages(
        images=np.asarray(samples.store.images[np.sort(samples.rows[chosen])]),
        source="test images of the run",
    )


def make_card(run: LoadedRun) -> dict[str, Any]:
    """What holds for every export of a run."""
    config, task = run.config, run.task
    size = config.data.store_size_px
    metrics_path, provenance_path = run.directory / METRICS_FILE, run.directory / "provenance.json"
    metrics = read_json(metrics_path).get("test") if metrics_path.is_file() else None
    provenance = read_json(provenance_path) if provenance_path.is_file() else {}
    output = f"float32 (B, {task.num_classes}), probabilities in the order of class_names"
    attributes: dict[str, Any] = {}
    if run.predicts_attributes():
        attributes = {"attributes": attribute_facts()}
        output += "; float32 (B, 31), probabilities of the values of all attributes, in their order"
    return {
        "model": config.model.name,
        "model_options": model_options(config.model),
        "parameters": run.parameter_count,
        "task": task.name,
        "class_names": list(task.class_names),
        "members": {name: list(cells) for name, cells in zip(task.class_names, task.members, strict=True)},
        "input": f"uint8 (B, {size}, {size}, 3), RGB, made square by preprocessing.framing",
        "output": output,
        **attributes,
        "preprocessing": preprocessing_facts(config, run.framing),
        "trained_on": {"dataset": config.data.dataset, "split": config.data.split},
        "metrics": {"test": metrics},
        "provenance": {
            "run": {key: provenance[key] for key in _PROVENANCE if key in provenance},
            "export": {key: value for key, value in collect_provenance().items() if key in _PROVENANCE},
        },
        "use": "research use only",
    }


def _write_and_compare(
    run: LoadedRun, options: ExportOptions, draft: Path, check: CheckImages
) -> tuple[list[Path], dict[str, Any], float]:
    """Files written, facts for the card, largest difference from the run."""
    predict = jit(run.predict_step())
    expected = predict(run.variables, check.images)
    files, facts = [draft], {"export": options.format}
    if options.format == "safetensors":
        save_variables(draft, run.variables, {"card": dumps_strict(make_card(run))})
        answers = [predict(load_variables(draft), check.images)]
    elif options.format == "stablehlo":
        size = run.config.data.store_size_px
        left_out = write_stablehlo(draft, run.predict_step(), run.variables, size, options.platforms)
        program = read_program(draft)
        facts |= {"platforms": list(program.platforms), "left_out": left_out}
        # One batch of all and one of a single image: the number of images is free.
        together, single = (answer(program.call(images)) for images in (check.images, check.images[:1]))
        answers = [
            together,
            jax.tree.map(lambda one, all_: np.concatenate([one, all_[1:]]), single, together),
        ]
    else:
        parts = trunks.torchvision_trunks(run.config.model.name, run.model, run.variables)
        written = trunks.write_trunks(draft, parts, run.variables)
        files = list(written.values())
        facts |= {"trunks": {path.name: parts[part] for part, path in written.items()}}
        answers = [predict(trunks.variables_from_trunks(written, parts, run.variables), check.images)]
    difference = max(_difference(said, expected) for said in answers)
    if not difference <= TOLERANCE:  # also when it is not a number
        raise DataError(
            f"the export differs from the run by {difference:.2e} in a probability",
            expected=f"at most {TOLERANCE:g} on {len(check.images)} {check.source}",
            where=str(options.out),
            remedy="nothing was written; report this with the card of the run",
        )
    return files, facts, difference


def _difference(said: Prediction, expected: Prediction) -> float:
    """Largest difference of a class or attribute probability; not a number where one is not."""
    gaps = jax.tree.map(lambda a, b: np.abs(np.asarray(a) - np.asarray(b)).max(), said, expected)
    return float(np.max(jax.tree.leaves(gaps)))


def _check_facts(check: CheckImages, difference: float) -> dict[str, Any]:
    return {
        "compared": "probabilities of the export, read back, and of the run",
        "images": len(check.images),
        "source": check.source,
        "largest_difference": difference,
        "tolerance": TOLERANCE,
    }


def _check(options: ExportOptions) -> None:
    problems = []
    suffixes = _SUFFIXES[options.format]
    if options.out.suffix not in suffixes:
        problems.append(f"out {options.out}: {options.format} must end in {' or '.join(suffixes)}")
    taken = [options.out, *(trunks.trunk_path(options.out, part) for part in ("resnet", "densenet", "trunk"))]
    existing = [str(path) for path in taken if path.exists()]
    if existing and not options.overwrite:
        problems.append(f"out: {', '.join(existing)} exists; it is replaced only with --overwrite")
    here = jax.export.default_export_platform()
    if options.format == "stablehlo" and here not in options.platforms:
        problems.append(f"platforms: {here}, where the program is to be checked now, must be among them")
    if problems:
        raise UsageError("the export cannot start\n  " + "\n  ".join(problems), where="wbc-jax export")

"""`wbc-jax explain`: where the network looks in image files, and by which morphology it decides."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from wbc_jax.catalog import ATTRIBUTES
from wbc_jax.commands.image_files import ImageBatch, find_images, make_batches, none_readable, read_images
from wbc_jax.commands.run import LoadedRun, load_run
from wbc_jax.data.decode import BadImage
from wbc_jax.errors import EXIT_OK, UsageError
from wbc_jax.explain.attributes import class_gradient_reaches, decides_by_attributes, uniform_prior
from wbc_jax.explain.cell_figure import AttributeReading, cell_figure
from wbc_jax.explain.grad_cam import feature_maps
from wbc_jax.explain.overlay import explanation_figure
from wbc_jax.explain.step import make_explain_step
from wbc_jax.models.attribute_groups import GROUP_SLICES
from wbc_jax.models.compiler import jit
from wbc_jax.runtime.progress import track

_CONTACT_IMAGES = 12


@dataclass(frozen=True, kw_only=True)
class ExplainOptions:
    """Options of `wbc-jax explain`."""

    out: Path = Path("explanations")
    """Folder for a figure of each image, explanations.csv and, of all images together, explanations.png. A figure is
    <name>_gradcam.png or, of a network that predicts morphology, <name>_cell.png."""
    endpoint: str | None = None
    """Feature map to explain; None: SCAM's output `attended`, DAFFNet's last semantic map, of other networks the
    last map."""
    class_name: str | None = None
    """Class whose evidence is shown; None: each image's predicted class."""
    batch_size: int = 16
    """Images per call of the network."""
    on_bad_image: Literal["stop", "skip"] = "skip"
    """An unreadable image: skip and list it, or stop there."""


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """One image explained.

    Attributes:
        path: name of the image.
        image: uint8 `(H, W, 3)`, what the network saw.
        heat: float32 `(H, W)` in [0, 1].
        probabilities: class name -> probability.
        explained: class that the map and the contributions are about.
        attributes: what the network says of each attribute; empty for a network without attributes.
    """

    path: str
    image: np.ndarray
    heat: np.ndarray
    probabilities: dict[str, float]
    explained: str
    attributes: list[AttributeReading]

    @property
    def predicted(self) -> str:
        """The most probable class."""
        return max(self.probabilities, key=lambda name: self.probabilities[name])

    def title(self) -> str:
        """Line above the image: file, class and confidence."""
        text = f"{Path(self.path).name}\n{self.predicted} {self.probabilities[self.predicted]:.1%}"
        return text if self.explained == self.predicted else f"{text}, shown: {self.explained}"

    def row(self, endpoint: str, figure: str) -> dict[str, str]:
        """Cells of the table."""
        cells = {
            "path": self.path,
            "predicted": self.predicted,
            "confidence": f"{self.probabilities[self.predicted]:.6f}",
            "explained": self.explained,
            "endpoint": endpoint,
            "figure": figure,
        }
        for reading in self.attributes:
            cells[reading.name] = reading.value
            cells[f"{reading.name}_confidence"] = f"{reading.confidence:.6f}"
            if reading.contribution is not None:
                cells[f"{reading.name}_contribution"] = f"{reading.contribution:.6f}"
        return cells


def explain(run_dir: Path, paths: tuple[Path, ...], options: ExplainOptions) -> int:
    """Draws where in each image the evidence for a class lies, and the morphology; returns the exit code.

    Raises:
        UsageError: no images, or an unknown class or endpoint.
        BadImage: an unreadable image, with `on_bad_image` stop.
        DataError: no image at all could be read.
    """
    if options.batch_size < 1:
        raise UsageError(f"batch_size {options.batch_size}: must be 1 or more", where="wbc-jax explain")
    files = find_images(paths)
    run = load_run(run_dir)
    endpoint = choose_endpoint(run, options.endpoint)
    class_index = None if options.class_name is None else run.class_index(options.class_name)
    options.out.mkdir(parents=True, exist_ok=True)
    skipped: list[BadImage] = []
    images = read_images(
        files,
        size_px=run.config.data.store_size_px,
        framing=run.framing,  # pyright: ignore[reportArgumentType]
        on_bad_image=options.on_bad_image,
    )
    batches = make_batches(images, min(options.batch_size, len(files)), skipped)
    explanations = track(_explanations(run, endpoint, class_index, batches), "explanations", len(files))
    first = _write_all(explanations, options.out, endpoint)
    if not first:
        raise none_readable(skipped)
    _contact_figure(first, options.out / "explanations.png", endpoint)
    print(f"written to {options.out}: Grad-CAM at {endpoint}")
    if decides_by_attributes(run.model):
        print(f"an attribute is taken away by {_prior_in_words(run)}")
    for problem in skipped:
        print(f"could not be used: {problem.name}: {problem.reason}")
    return EXIT_OK


def choose_endpoint(run: LoadedRun, name: str | None) -> str:
    """The feature map to explain; UsageError lists all when there is none of that name."""
    size = run.config.data.image_size_px
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    maps = feature_maps(run.model, run.variables, images)
    reached = {known: shape for known, shape in maps.items() if class_gradient_reaches(run.model, known)}
    if name is None:
        semantic = [known for known in reached if known.startswith("semantic/")]
        return "attended" if "attended" in reached else (semantic or list(reached))[-1]
    if name not in reached:
        found = f"no feature map {name!r}"
        if name in maps:
            found = (
                f"the gradient of a class does not reach {name!r}: the predicted attributes enter as they are"
            )
        lines = [f"  {known}: {' x '.join(map(str, shape[1:]))}" for known, shape in reached.items()]
        raise UsageError(
            found,
            expected="\n".join(["one of (height x width x channels)", *lines]),
            where="--endpoint",
        )
    return name


def _prior_in_words(run: LoadedRun) -> str:
    if run.attribute_prior() is None:
        return "giving each of its values the same probability: the run has no annotated training images"
    return "giving its values the frequencies that they have among the training images"


def _explanations(
    run: LoadedRun, endpoint: str, class_index: int | None, batches: Iterator[ImageBatch]
) -> Iterator[Explanation]:
    prior = run.attribute_prior()
    step = make_explain_step(
        run.model,
        run.predict_step(),
        endpoint,
        class_index,
        image_size_px=run.config.data.image_size_px,
        prior=uniform_prior() if prior is None else prior,
    )
    compiled, variables = jit(step), jax.device_put(run.variables)
    names = run.task.class_names
    for batch in batches:
        found = jax.tree.map(np.asarray, compiled(variables, batch.images))
        for row, path in enumerate(batch.paths):
            one = jax.tree.map(lambda values: values[row], found)  # noqa: B023
            best = int(one.prediction.probabilities.argmax())
            yield Explanation(
                path=path,
                image=one.seen,
                heat=one.heat,
                probabilities=dict(zip(names, map(float, one.prediction.probabilities), strict=True)),
                explained=names[best if class_index is None else class_index],
                attributes=_readings(one.prediction.attribute_probabilities, one.contributions),
            )


def _readings(probabilities: np.ndarray | None, contributions: np.ndarray | None) -> list[AttributeReading]:
    """Of one image, `(31,)` and `(11,)`."""
    if probabilities is None:
        return []
    readings = []
    for index, (attribute, part) in enumerate(zip(ATTRIBUTES, GROUP_SLICES, strict=True)):
        best = int(probabilities[part].argmax())
        readings.append(
            AttributeReading(
                name=attribute.name,
                value=attribute.values[best],
                confidence=float(probabilities[part][best]),
                contribution=None if contributions is None else float(contributions[index]),
            )
        )
    return readings


def _write_all(explanations: Iterator[Explanation], out: Path, endpoint: str) -> list[Explanation]:
    """A figure and a row each; returns the first few for the contact figure."""
    first: list[Explanation] = []
    used: set[str] = set()
    with (out / "explanations.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        for one in explanations:
            figure = out / _figure_name(one.path, "cell" if one.attributes else "gradcam", used)
            _draw(one, figure, endpoint)
            row = one.row(endpoint, figure.name)
            if not first:
                writer.writerow(row)
            writer.writerow(row.values())
            if len(first) < _CONTACT_IMAGES:
                first.append(one)
    return first


def _draw(one: Explanation, path: Path, endpoint: str) -> None:
    if not one.attributes:
        explanation_figure([one.image], [one.heat], [one.title()], path, endpoint=endpoint)
        return
    cell_figure(
        one.image,
        one.heat,
        one.probabilities,
        one.attributes,
        path,
        title=one.title().replace("\n", ": "),
        explained=one.explained,
        endpoint=endpoint,
    )


def _figure_name(path: str, kind: str, used: set[str]) -> str:
    """`a.jpg` -> `a_gradcam.png`; numbered where another folder has an image of that name."""
    stem = re.sub(r"[^\w.-]+", "_", Path(path).stem) or "image"
    name, number = f"{stem}_{kind}.png", 2
    while name in used:
        name, number = f"{stem}-{number}_{kind}.png", number + 1
    used.add(name)
    return name


def _contact_figure(first: list[Explanation], path: Path, endpoint: str) -> None:
    explanation_figure(
        [one.image for one in first],
        [one.heat for one in first],
        [one.title() for one in first],
        path,
        endpoint=endpoint,
    )

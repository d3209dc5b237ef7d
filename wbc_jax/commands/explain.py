"""`wbc-jax explain`: Grad-CAM overlays of image files."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from wbc_jax.commands.image_files import ImageBatch, find_images, make_batches, none_readable, read_images
from wbc_jax.commands.run import LoadedRun, load_run
from wbc_jax.data.decode import BadImage
from wbc_jax.errors import EXIT_OK, UsageError
from wbc_jax.explain.grad_cam import feature_maps, grad_cam
from wbc_jax.explain.overlay import explanation_figure
from wbc_jax.runtime.progress import track
from wbc_jax.train.augment import IMAGENET_MEAN, IMAGENET_STD, center

_CONTACT_IMAGES = 12


@dataclass(frozen=True, kw_only=True)
class ExplainOptions:
    """Options of `wbc-jax explain`."""

    out: Path = Path("explanations")
    """Folder for <name>_gradcam.png of each image, explanations.png and explanations.csv."""
    endpoint: str | None = None
    """Feature map to explain; None: SCAM's output `attended`, of other networks the last map."""
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
        predicted: predicted class.
        confidence: its probability.
        explained: class that the map is about.
    """

    path: str
    image: np.ndarray
    heat: np.ndarray
    predicted: str
    confidence: float
    explained: str

    def title(self) -> str:
        """Line above the image: file, class and confidence."""
        text = f"{Path(self.path).name}\n{self.predicted} {self.confidence:.1%}"
        return text if self.explained == self.predicted else f"{text}, shown: {self.explained}"


def explain(run_dir: Path, paths: tuple[Path, ...], options: ExplainOptions) -> int:
    """Draws where in each image the evidence for a class lies; returns the exit code.

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
    for problem in skipped:
        print(f"could not be used: {problem.name}: {problem.reason}")
    return EXIT_OK


def choose_endpoint(run: LoadedRun, name: str | None) -> str:
    """The feature map to explain; UsageError lists all when there is none of that name."""
    size = run.config.data.image_size_px
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    maps = feature_maps(run.model, run.variables, images)
    if name is None:
        return "attended" if "attended" in maps else list(maps)[-1]
    if name not in maps:
        lines = [f"  {known}: {' x '.join(map(str, shape[1:]))}" for known, shape in maps.items()]
        raise UsageError(
            f"no feature map {name!r}",
            expected="\n".join(["one of (height x width x channels)", *lines]),
            where="--endpoint",
        )
    return name


def make_explain_step(
    run: LoadedRun, endpoint: str, class_index: int | None
) -> Callable[[Any, jax.Array], tuple[jax.Array, jax.Array, jax.Array]]:
    """`(variables, uint8 (B, S, S, 3)) -> probabilities (B, K), heat (B, H, W), uint8 (B, H, W, 3) as seen`, pure."""
    mean, std = (jnp.asarray(v, jnp.float32)[None, None, None, :] for v in (IMAGENET_MEAN, IMAGENET_STD))
    predict = run.predict_step()

    def step(variables: Any, images_u8: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        images = center(images_u8, run.config.data.image_size_px)  # (B, H, W, 3)
        probabilities = predict(variables, images_u8)
        chosen = jnp.argmax(probabilities, axis=-1) if class_index is None else class_index
        heat = grad_cam(run.model, variables, images, endpoint, chosen)
        seen = jnp.clip((images * std + mean) * 255.0 + 0.5, 0.0, 255.0).astype(jnp.uint8)
        return probabilities, heat, seen

    return step


def _explanations(
    run: LoadedRun, endpoint: str, class_index: int | None, batches: Iterator[ImageBatch]
) -> Iterator[Explanation]:
    step, variables = jax.jit(make_explain_step(run, endpoint, class_index)), jax.device_put(run.variables)
    names = run.task.class_names
    for batch in batches:
        probabilities, heats, seen = map(np.asarray, step(variables, batch.images))
        for row, path in enumerate(batch.paths):
            best = int(probabilities[row].argmax())
            yield Explanation(
                path=path,
                image=seen[row],
                heat=heats[row],
                predicted=names[best],
                confidence=float(probabilities[row, best]),
                explained=names[best if class_index is None else class_index],
            )


def _write_all(explanations: Iterator[Explanation], out: Path, endpoint: str) -> list[Explanation]:
    """A figure and a row each; returns the first few for the contact figure."""
    first: list[Explanation] = []
    used: set[str] = set()
    with (out / "explanations.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "predicted", "confidence", "explained", "endpoint", "figure"])
        for one in explanations:
            figure = out / _figure_name(one.path, used)
            explanation_figure([one.image], [one.heat], [one.title()], figure, endpoint=endpoint)
            confidence = f"{one.confidence:.6f}"
            writer.writerow([one.path, one.predicted, confidence, one.explained, endpoint, figure.name])
            if len(first) < _CONTACT_IMAGES:
                first.append(one)
    return first


def _figure_name(path: str, used: set[str]) -> str:
    """`cell.jpg` -> `cell_gradcam.png`; numbered where another folder has an image of that name."""
    stem = re.sub(r"[^\w.-]+", "_", Path(path).stem) or "image"
    name, number = f"{stem}_gradcam.png", 2
    while name in used:
        name, number = f"{stem}-{number}_gradcam.png", number + 1
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

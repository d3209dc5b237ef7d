"""Pictures of single cells and whole fields, each a pure function of its seed and index."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from wbc_jax.data.synthetic.background import RED_CELL_RADIUS_UM, draw_platelet, draw_red_cell, draw_speck
from wbc_jax.data.synthetic.geometry import Canvas
from wbc_jax.data.synthetic.morphology import SYNTHETIC_CLASSES, sample_spec
from wbc_jax.data.synthetic.noise import Purpose, stream
from wbc_jax.data.synthetic.optics import expose, sample_microscope
from wbc_jax.data.synthetic.spec import CellSpec, attributes_of
from wbc_jax.data.synthetic.stain import Stain, sample_stain
from wbc_jax.data.synthetic.white_cells import draw_white_cell
from wbc_jax.errors import UsageError

FIELD_UM = 24.0
"""Side of the square that a single-cell picture shows: a little over three red cells."""

_GOLDEN = 0.6180339887498949


@dataclass(frozen=True, eq=False)
class RenderedCell:
    """One picture with its truth.

    Attributes:
        sample_id: `"{seed}/{index}"`.
        image: uint8 `(S, S, 3)`, RGB.
        cell_class: one of `SYNTHETIC_CLASSES`.
        attributes: 11 value indices in the order of `catalog.ATTRIBUTES`.
        cell_mask, nucleus_mask: bool `(S, S)`; the nucleus lies within the cell.
        spec: the cell's own numbers.
    """

    sample_id: str
    image: np.ndarray
    cell_class: str
    attributes: tuple[int, ...]
    cell_mask: np.ndarray
    nucleus_mask: np.ndarray
    spec: CellSpec


@dataclass(frozen=True, eq=False)
class RenderedSmear:
    """A whole field of N white cells with its truth.

    Attributes:
        image: uint8 `(H, W, 3)`, RGB.
        boxes: int32 `(N, 4)`, pixels, x_min, y_min, x_max, y_max; the maxima lie just outside the cell.
        classes: N cell classes.
        attributes: int32 `(N, 11)`.
        cell_labels, nucleus_labels: int32 `(H, W)`, 0 outside and n + 1 in cell n.
        um_per_px: micrometres per pixel.
    """

    image: np.ndarray
    boxes: np.ndarray
    classes: tuple[str, ...]
    attributes: np.ndarray
    cell_labels: np.ndarray
    nucleus_labels: np.ndarray
    um_per_px: float


def _shares(class_shares: Mapping[str, float] | None) -> np.ndarray:
    """Cumulative shares in the order of `SYNTHETIC_CLASSES`, ending at 1."""
    shares = dict.fromkeys(SYNTHETIC_CLASSES, 1.0) if class_shares is None else dict(class_shares)
    unknown = sorted(set(shares) - set(SYNTHETIC_CLASSES))
    weights = np.array([float(shares.get(name, 0.0)) for name in SYNTHETIC_CLASSES])
    if unknown or not np.isfinite(weights).all() or (weights < 0.0).any() or weights.sum() <= 0.0:
        raise UsageError(
            f"class shares {shares!r}",
            expected=f"a non-negative number per class, not all 0, of {', '.join(SYNTHETIC_CLASSES)}",
            where="class_shares",
        )
    return np.cumsum(weights) / weights.sum()


def class_of(seed: int, index: int, class_shares: Mapping[str, float] | None = None) -> str:
    """Class of a sample. Any run of consecutive indices holds nearly the exact shares (golden-ratio sequence)."""
    edges = _shares(class_shares)
    start = stream(seed, 0, Purpose.CLASS).random()
    place = (start + index * _GOLDEN) % 1.0
    return SYNTHETIC_CLASSES[min(int(np.searchsorted(edges, place, side="right")), len(edges) - 1)]


def _red_cell_places(
    rng: np.random.Generator,
    count: int,
    half_um: tuple[float, float],
    keep_clear: list[tuple[float, float, float]],
) -> list[tuple[float, float]]:
    """Up to `count` centres in a field (half width, half height): little overlap, clear of white cells.

    `keep_clear` holds (x, y, radius) of the white cells. Crowded fields end with fewer cells.
    """
    margin = RED_CELL_RADIUS_UM * 0.9
    span = (half_um[0] + margin, half_um[1] + margin)
    places: list[tuple[float, float]] = []
    tries = rng.uniform(-1.0, 1.0, size=(count * 6, 2)) * np.array(span)
    closeness = rng.uniform(0.95, 2.1, size=count * 6) * RED_CELL_RADIUS_UM
    white = np.array(keep_clear).reshape(-1, 3)
    taken = np.empty((count, 2))
    for (x, y), gap in zip(tries, closeness, strict=True):
        if len(places) == count:
            break
        if (
            (white[:, 0] - x) ** 2 + (white[:, 1] - y) ** 2 < (white[:, 2] + 0.75 * RED_CELL_RADIUS_UM) ** 2
        ).any():
            continue
        others = taken[: len(places)]
        if ((others[:, 0] - x) ** 2 + (others[:, 1] - y) ** 2 < gap * gap).any():
            continue
        taken[len(places)] = (x, y)
        places.append((float(x), float(y)))
    return places


def _draw_surroundings(
    canvas: Canvas,
    stain: Stain,
    rng: np.random.Generator,
    num_red_cells: int,
    half_um: tuple[float, float],
    keep_clear: list[tuple[float, float, float]],
) -> None:
    """Red cells, and now and then platelets and specks, in a field given by its half width and height."""
    haemoglobin = stain.colour("haemoglobin")
    for x, y in _red_cell_places(rng, num_red_cells, half_um, keep_clear):
        draw_red_cell(canvas, x, y, haemoglobin, rng)
    fields = half_um[0] * half_um[1] / (FIELD_UM / 2.0) ** 2
    for draw, mean in ((draw_platelet, 0.35), (draw_speck, 0.08)):
        for _ in range(int(rng.poisson(mean * fields))):
            draw(
                canvas,
                float(rng.uniform(-half_um[0], half_um[0])),
                float(rng.uniform(-half_um[1], half_um[1])),
                stain,
                rng,
            )


def _check_size(size_px: int) -> None:
    if not 16 <= size_px <= 2048:
        raise UsageError(f"size_px={size_px}", expected="16 to 2048 pixels", where="size_px")


def _render(seed: int, index: int, cell_class: str, size_px: int) -> RenderedCell:
    _check_size(size_px)
    spec = sample_spec(stream(seed, index, Purpose.CELL), cell_class)
    rng = stream(seed, index, Purpose.SCENE)
    stain, microscope = sample_stain(rng), sample_microscope(rng)
    field_um = FIELD_UM * float(rng.uniform(0.94, 1.06))
    x_um, y_um = (float(v) for v in rng.normal(0.0, 0.7, size=2).clip(-1.6, 1.6))
    num_red_cells = int(rng.integers(4, 19))
    canvas = Canvas.blank(size_px, size_px, field_um / size_px)
    clear = [(x_um, y_um, spec.outline.radius_um)]
    _draw_surroundings(canvas, stain, rng, num_red_cells, (field_um / 2.0, field_um / 2.0), clear)
    drawn = draw_white_cell(canvas, spec, x_um, y_um, stain)
    cell_mask, nucleus_mask = np.zeros((2, size_px, size_px), bool)
    cell_mask[drawn.rows, drawn.columns] = drawn.cell_mask
    nucleus_mask[drawn.rows, drawn.columns] = drawn.nucleus_mask
    image = expose(canvas.od, canvas.um_per_px, microscope, stream(seed, index, Purpose.SENSOR))
    return RenderedCell(
        sample_id=f"{seed}/{index}",
        image=image,
        cell_class=cell_class,
        attributes=attributes_of(spec),
        cell_mask=cell_mask,
        nucleus_mask=nucleus_mask,
        spec=spec,
    )


def render_cell(seed: int, cell_class: str, size_px: int = 96) -> RenderedCell:
    """A cell of a given class in its surroundings; the same picture for the same arguments.

    Raises:
        UsageError: unknown class, or a size outside 16 … 2048 pixels.
    """
    if cell_class not in SYNTHETIC_CLASSES:
        raise UsageError(
            f"cell class {cell_class!r}",
            expected=f"one of {', '.join(SYNTHETIC_CLASSES)}",
            where="cell_class",
        )
    return _render(seed, 0, cell_class, size_px)


def render_sample(
    seed: int, index: int, size_px: int = 96, class_shares: Mapping[str, float] | None = None
) -> RenderedCell:
    """Sample `index` of the data set `seed`: independent of all others, so any process may render any part."""
    return _render(seed, index, class_of(seed, index, class_shares), size_px)


def render_dataset(
    seed: int, count: int, size_px: int = 96, class_shares: Mapping[str, float] | None = None
) -> Iterator[RenderedCell]:
    """Samples 0 … count-1 of the data set `seed`, five classes in equal shares unless `class_shares` says other."""
    for index in range(count):
        yield render_sample(seed, index, size_px, class_shares)


def _white_cell_places(
    rng: np.random.Generator, specs: list[CellSpec], half_um: tuple[float, float]
) -> list[tuple[float, float, float]] | None:
    """(x, y, reach) of cells that lie whole in the field and apart from one another; None without room."""
    places: list[tuple[float, float, float]] = []
    for spec in specs:
        reach = spec.outline.reach_um + 0.5
        room_x, room_y = half_um[0] - reach, half_um[1] - reach
        if min(room_x, room_y) < 0.0:
            return None
        for _ in range(200):
            x, y = float(rng.uniform(-room_x, room_x)), float(rng.uniform(-room_y, room_y))
            if all((x - a) ** 2 + (y - b) ** 2 > (reach + c) ** 2 for a, b, c in places):
                places.append((x, y, reach))
                break
        else:
            return None
    return places


def render_smear(
    seed: int,
    size_px: tuple[int, int] = (480, 640),
    num_white_cells: int = 3,
    num_red_cells: int = 120,
    *,
    um_per_px: float = 0.15,
    class_shares: Mapping[str, float] | None = None,
) -> RenderedSmear:
    """A whole field, (H, W) pixels, of white cells that lie apart among red cells (fewer where there is no room).

    Raises:
        UsageError: no room for the white cells, bad shares, or a side outside 16 … 2048 pixels.
    """
    height, width = size_px
    _check_size(height)
    _check_size(width)
    half_um = (width * um_per_px / 2.0, height * um_per_px / 2.0)
    classes = tuple(class_of(seed, index, class_shares) for index in range(num_white_cells))
    specs = [sample_spec(stream(seed, n, Purpose.SMEAR_CELL), name) for n, name in enumerate(classes)]
    rng = stream(seed, 0, Purpose.SMEAR_SCENE)
    stain, microscope = sample_stain(rng), sample_microscope(rng)
    places = _white_cell_places(rng, specs, half_um)
    if places is None:
        raise UsageError(
            f"no room for {num_white_cells} white cells in {width * um_per_px:.0f} x {height * um_per_px:.0f} um",
            expected="a field that holds every cell whole and without overlap",
            where="num_white_cells",
            remedy="ask for fewer cells, a larger field or more micrometres per pixel",
        )
    canvas = Canvas.blank(height, width, um_per_px)
    clear = [(x, y, spec.outline.radius_um) for spec, (x, y, _) in zip(specs, places, strict=True)]
    _draw_surroundings(canvas, stain, rng, num_red_cells, half_um, clear)
    cell_labels, nucleus_labels = np.zeros((2, height, width), np.int32)
    boxes = np.zeros((num_white_cells, 4), np.int32)
    for number, (spec, (x, y, _)) in enumerate(zip(specs, places, strict=True)):
        drawn = draw_white_cell(canvas, spec, x, y, stain)
        cell_labels[drawn.rows, drawn.columns][drawn.cell_mask] = number + 1
        nucleus_labels[drawn.rows, drawn.columns][drawn.nucleus_mask] = number + 1
        rows, columns = np.nonzero(cell_labels == number + 1)
        boxes[number] = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    return RenderedSmear(
        image=expose(canvas.od, um_per_px, microscope, stream(seed, 0, Purpose.SMEAR_SENSOR)),
        boxes=boxes,
        classes=classes,
        attributes=np.array([attributes_of(spec) for spec in specs], np.int32).reshape(-1, 11),
        cell_labels=cell_labels,
        nucleus_labels=nucleus_labels,
        um_per_px=um_per_px,
    )

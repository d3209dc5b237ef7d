"""The words of the field: cell classes, morphological attributes, and the tasks that the papers define.

Everything is addressed by name. A label is an index into `Task.class_names`, an attribute value an index into
`Attribute.values` (alphabetical, as WBCAtt encodes them); -1 marks an attribute that was not annotated.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ABSENT = -1
"""Label of an attribute that a data set does not annotate."""

CELL_CLASSES: tuple[str, ...] = (
    "basophil",
    "eosinophil",
    "lymphocyte",
    "monocyte",
    "neutrophil",
    "erythroblast",
    "immature_granulocyte",
    "platelet",
    "neutrophil_band",
    "lymphoblast",
    "myeloblast",
)
"""The common vocabulary. Data sets map their own names onto it; the first five are the mature white cells."""

_ALIASES: dict[str, str] = {
    "ba": "basophil",
    "baso": "basophil",
    "basophils": "basophil",
    "eo": "eosinophil",
    "eosi": "eosinophil",
    "eosino": "eosinophil",
    "eosinophils": "eosinophil",
    "eosinophile": "eosinophil",
    "ly": "lymphocyte",
    "lym": "lymphocyte",
    "lymp": "lymphocyte",
    "lympho": "lymphocyte",
    "lymphocytes": "lymphocyte",
    "mo": "monocyte",
    "mono": "monocyte",
    "monocytes": "monocyte",
    "ne": "neutrophil",
    "neu": "neutrophil",
    "neut": "neutrophil",
    "neutro": "neutrophil",
    "neutrophils": "neutrophil",
    "neutrophile": "neutrophil",
    "neutrophil_segment": "neutrophil",
    "neutrophil_segments": "neutrophil",
    "neutrophil_segmented": "neutrophil",
    "segmented_neutrophil": "neutrophil",
    "segmented_neutrophils": "neutrophil",
    "neutrophil_bands": "neutrophil_band",
    "band_neutrophil": "neutrophil_band",
    "erythroblasts": "erythroblast",
    "normoblast": "erythroblast",
    "normoblasts": "erythroblast",
    "ig": "immature_granulocyte",
    "immature_granulocytes": "immature_granulocyte",
    "platelets": "platelet",
    "lymphoblasts": "lymphoblast",
    "myeloblasts": "myeloblast",
}


def canonical_class(name: str) -> str | None:
    """The cell class that a folder or label name means, or None outside the common vocabulary.

    Case, spaces and hyphens do not matter: `Neutrophils`, `NEUTROPHIL` and `neut` all mean `neutrophil`.
    """
    key = "_".join(name.strip().lower().replace("-", " ").split())
    return key if key in CELL_CLASSES else _ALIASES.get(key)


@dataclass(frozen=True, kw_only=True)
class Attribute:
    """One morphological attribute of WBCAtt (Tsutsui et al. 2023) with its values in alphabetical order."""

    name: str
    values: tuple[str, ...]

    def encode(self, value: str) -> int:
        """Index of `value`; ValueError names the attribute and its values when there is none."""
        if value not in self.values:
            raise ValueError(f"{self.name} has no value {value!r}; its values are {', '.join(self.values)}")
        return self.values.index(value)


ATTRIBUTES: tuple[Attribute, ...] = (
    Attribute(name="cell_size", values=("big", "small")),
    Attribute(name="cell_shape", values=("irregular", "round")),
    Attribute(
        name="nucleus_shape",
        values=(
            "irregular",
            "segmented-bilobed",
            "segmented-multilobed",
            "unsegmented-band",
            "unsegmented-indented",
            "unsegmented-round",
        ),
    ),
    Attribute(name="nuclear_cytoplasmic_ratio", values=("high", "low")),
    Attribute(name="chromatin_density", values=("densely", "loosely")),
    Attribute(name="cytoplasm_vacuole", values=("no", "yes")),
    Attribute(name="cytoplasm_texture", values=("clear", "frosted")),
    Attribute(name="cytoplasm_colour", values=("blue", "light blue", "purple blue")),
    Attribute(name="granule_type", values=("coarse", "nil", "round", "small")),
    Attribute(name="granule_colour", values=("nil", "pink", "purple", "red")),
    Attribute(name="granularity", values=("no", "yes")),
)
"""The 11 attributes in WBCAtt's column order; 31 values in all."""

ATTRIBUTE_NAMES: tuple[str, ...] = tuple(a.name for a in ATTRIBUTES)


def attribute_facts() -> list[dict[str, str | list[str]]]:
    """The attributes and their values in order, as a card states them."""
    return [{"name": a.name, "values": list(a.values)} for a in ATTRIBUTES]


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is to be told apart: output classes, and the cell classes that each of them gathers."""

    name: str
    class_names: tuple[str, ...]
    members: tuple[tuple[str, ...], ...]

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def label(self, cell_class: str) -> int | None:
        """Output index of a cell class, or None when the task leaves that class out."""
        for index, gathered in enumerate(self.members):
            if cell_class in gathered:
                return index
        return None


def class_task(name: str, class_names: tuple[str, ...]) -> Task:
    """A task whose output classes are the given cell classes, one to one, in the given order."""
    return Task(name=name, class_names=class_names, members=tuple((c,) for c in class_names))


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        class_task("wbc5", CELL_CLASSES[:5]),
        class_task("pbc8", CELL_CLASSES[:8]),
        class_task("wbc4", ("eosinophil", "lymphocyte", "monocyte", "neutrophil")),
        class_task(
            "labelled9",
            (
                "basophil",
                "eosinophil",
                "lymphocyte",
                "monocyte",
                "neutrophil",
                "erythroblast",
                "neutrophil_band",
                "lymphoblast",
                "myeloblast",
            ),
        ),
        Task(
            name="mtd3",
            class_names=("eosinophil", "lymphocyte", "mtd"),
            members=(("eosinophil",), ("lymphocyte",), ("monocyte", "neutrophil")),
        ),
        Task(
            name="intermediate3",
            class_names=("intermediate", "lymphocyte", "neutrophil"),
            members=(("eosinophil", "monocyte"), ("lymphocyte",), ("neutrophil",)),
        ),
    )
}
"""Named tasks. `mtd3` (BCCD) and `intermediate3` (WBCs) are the tri-class tasks of WBC-AMNet."""


def label_map(task: Task, cell_classes: tuple[str, ...]) -> np.ndarray:
    """Task label of each cell class, int32 `(len(cell_classes),)`; -1 where the task leaves it out."""
    labels = [task.label(name) for name in cell_classes]
    return np.asarray([-1 if label is None else label for label in labels], dtype=np.int32)

"""The vocabulary: names, aliases, tasks, and WBCAtt's sizes."""

from __future__ import annotations

import numpy as np
import pytest

from wbc_jax.catalog import ATTRIBUTES, CELL_CLASSES, TASKS, canonical_class, label_map


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ("NEUTROPHIL", "neutrophil"),
        ("neut", "neutrophil"),
        ("Eosinophils", "eosinophil"),
        ("eosi", "eosinophil"),
        ("ig", "immature_granulocyte"),
        ("normoblast", "erythroblast"),
        ("Band-Neutrophil", "neutrophil_band"),
        ("artefact", None),
    ],
)
def test_names_of_data_sets_meet_in_one_vocabulary(found: str, expected: str | None) -> None:
    assert canonical_class(found) == expected


def test_attribute_sizes_are_those_of_the_paper() -> None:
    sizes = [len(a.values) for a in ATTRIBUTES]
    assert sizes == [2, 2, 6, 2, 2, 2, 2, 3, 4, 4, 2]
    assert sum(sizes) == 31
    assert sum(n * n for n in sizes) == 105


def test_attribute_values_are_in_alphabetical_order_and_encode_by_name() -> None:
    for attribute in ATTRIBUTES:
        assert list(attribute.values) == sorted(attribute.values)
        assert [attribute.encode(v) for v in attribute.values] == list(range(len(attribute.values)))
    with pytest.raises(ValueError, match="cell_size has no value 'huge'"):
        ATTRIBUTES[0].encode("huge")


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda t: t.name)
def test_tasks_gather_known_classes_without_overlap(task) -> None:
    gathered = [name for group in task.members for name in group]
    assert len(gathered) == len(set(gathered))
    assert set(gathered) <= set(CELL_CLASSES)
    assert len(task.class_names) == len(task.members)


def test_tri_class_task_merges_monocyte_and_neutrophil() -> None:
    labels = label_map(TASKS["mtd3"], ("monocyte", "neutrophil", "eosinophil", "basophil"))
    np.testing.assert_array_equal(labels, [2, 2, 0, -1])

"""What the predictions for a set of images are worth: scored, written down, drawn and shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from wbc_jax.catalog import ABSENT, Task, label_map
from wbc_jax.commands.scoring import SamplePredictions
from wbc_jax.data.experiment import Samples
from wbc_jax.data.packed import PackedStore
from wbc_jax.evaluate.attribute_figures import attribute_confusion_figure
from wbc_jax.evaluate.attribute_report import AttributeEvaluation, evaluate_attributes
from wbc_jax.evaluate.attribute_tables import attribute_overall_table, attribute_table, write_attribute_csv
from wbc_jax.evaluate.attributes import Baselines, fit_baselines
from wbc_jax.evaluate.figures import draw_all
from wbc_jax.evaluate.predictions import prediction_rows, write_predictions
from wbc_jax.evaluate.report import Evaluation, evaluate_predictions
from wbc_jax.evaluate.tables import class_table, overall_table, write_class_csv


@dataclass(frozen=True, kw_only=True)
class Results:
    """Scores of one set of images.

    Attributes:
        classes: cell classes.
        attributes: morphology; None for a network that does not predict it, or images without annotations.
    """

    classes: Evaluation
    attributes: AttributeEvaluation | None

    def to_json(self, name: str) -> dict[str, Any]:
        """Flat `test.accuracy`, `test.attribute_accuracy`, … for scripts, and everything else under `test`."""
        flat, details = dict(self.classes.overall), self.classes.to_json()
        if self.attributes is not None:
            flat |= self.attributes.overall
            details["attributes"] = self.attributes.to_json()
        return {**{f"{name}.{score}": value for score, value in flat.items()}, name: details}

    def show(self, title: str) -> None:
        """Prints the tables."""
        console = Console()
        console.print(overall_table(self.classes, title))
        console.print(class_table(self.classes))
        if self.attributes is not None:
            console.print(attribute_overall_table(self.attributes, title))
            console.print(attribute_table(self.attributes))


def score_samples(
    predict: Callable[[Samples], SamplePredictions],
    samples: Samples,
    class_names: tuple[str, ...],
    *,
    name: str,
    directory: Path,
    bootstrap_samples: int,
    baselines: Callable[[], Baselines | None],
) -> Results:
    """Scores one set of samples and writes its predictions file, figures and tables.

    Args:
        predict: what the network says of samples.
        samples: what to score; at least one.
        class_names: the K classes.
        name: stem of the files, such as `test`.
        directory: gets `predictions/` and `figures/`.
        bootstrap_samples: resamples behind the intervals; 0: none.
        baselines: of the attributes, from training images, asked for only where attributes are scored; None: no
            training image is annotated.
    """
    predicted = predict(samples)
    classes = evaluate_predictions(
        samples.labels, predicted.probabilities, class_names, bootstrap_samples=bootstrap_samples
    )
    rows = prediction_rows(
        samples.ids(),
        predicted.probabilities,
        class_names,
        samples.labels,
        predicted.attribute_probabilities,
        samples.attributes,
    )
    write_predictions(directory / "predictions" / f"{name}.csv", rows)
    figures = directory / "figures"
    draw_all(classes, figures, name)
    write_class_csv(classes, figures / f"classes_{name}.csv")
    attributes = None
    if predicted.attribute_probabilities is not None and (samples.attributes != ABSENT).any():
        attributes = evaluate_attributes(
            samples.attributes,
            predicted.attribute_probabilities,
            samples.labels,
            baselines(),
            bootstrap_samples=bootstrap_samples,
        )
        write_attribute_csv(attributes, figures / f"attributes_{name}.csv")
        attribute_confusion_figure(attributes, figures / f"attribute_confusion_{name}.png")
    return Results(classes=classes, attributes=attributes)


def training_baselines(task: Task, store: PackedStore, rows: np.ndarray) -> Baselines | None:
    """Baselines of the attributes from the annotated images among `rows` of a store; None without any."""
    labels = label_map(task, store.samples.cell_classes)[store.samples.cell_class][rows]
    attributes = store.samples.attributes[rows]
    known = (labels >= 0) & (attributes != ABSENT).any(axis=1)
    return fit_baselines(labels[known], attributes[known], task.num_classes)

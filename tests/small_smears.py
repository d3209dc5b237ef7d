"""The embedded data sets with few images and the tiny networks with one stage; as a script, `wbc-jax` on them.

python tests/small_smears.py train --config daffnet:tiny …
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from wbc_jax.data.registry import builder_class
from wbc_jax.models.resnet import RESNETS

COUNTS = {
    "synthetic_smear": {"train": 60, "val": 20, "test": 20},
    "synthetic_smear_plain": {"train": 30, "val": 10, "test": 10},
}

STAGED = (
    "--data.image-size-px", "32",
    "--data.store-size-px", "36",
    "--data.max-images-per-class", "8",
    "--train.batch-size", "16",
    "--train.epochs", "2",
    "--morphology.map-epochs", "2",
    "--morphology.mixed-epochs", "2",
    "--log.every-steps", "1",
    "--log.no-tensorboard",
    "--augment.no-enabled",
    "--checkpoint.every-steps", "1",
    "--eval.every-epochs", "1",
    "--eval.bootstrap-samples", "10",
)  # fmt: skip
"""`daffnet:tiny` in seconds: 40 and 30 images, 2 or 4 steps an epoch."""


def shrink(
    set_attribute: Callable[[object, str, object], None] = setattr,
    set_item: Callable[[dict, str, object], None] = dict.__setitem__,
) -> None:
    """Few images, and networks that compile in seconds; tests pass the methods of `monkeypatch`."""
    for name, counts in COUNTS.items():
        set_attribute(builder_class(name), "COUNTS", counts)
    for name in ("resnet_tiny", "epsanet_tiny"):
        set_item(RESNETS, name, {**RESNETS[name], "stage_sizes": (1,), "stem_stride": 4})


def leave_out_figures() -> None:
    """Drawing takes longer than training here."""
    from wbc_jax.commands import conclude, results

    for module, name in (
        (results, "draw_all"),
        (results, "attribute_confusion_figure"),
        (conclude, "training_figure"),
    ):
        setattr(module, name, lambda *_: None)


if __name__ == "__main__":
    from wbc_jax.cli import main

    shrink()
    leave_out_figures()
    sys.exit(main())

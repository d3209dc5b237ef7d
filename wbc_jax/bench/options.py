"""Options that the benchmarks share; a field's docstring is its help text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wbc_jax.bench.schema import COLUMNS, check_out
from wbc_jax.config import Precision
from wbc_jax.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class TimingOptions:
    """How often is measured, and where the rows go."""

    precision: Precision = "auto"
    """Type of activations; auto: bfloat16 on accelerators, float32 on CPU."""
    warmup_steps: int = 2
    """Untimed steps before the first repeat."""
    timed_steps: int | None = None
    """Steps of one timed chain; None: 3 on a CPU, 20 on accelerators."""
    repeats: int = 5
    """Timed chains of each contender, taken in turns; the median counts."""
    out: Path | None = None
    """CSV file that rows are added to; None: they are only printed."""

    def check(self) -> None:
        """UsageError that names every number out of range, before anything is compiled."""
        names = (
            "warmup_steps",
            "timed_steps",
            "repeats",
            "batch_size",
            "image_size_px",
            "store_size_px",
            "images",
        )
        lowest = {name: 0 if name == "warmup_steps" else 1 for name in names}
        values = {name: getattr(self, name, None) for name in names}
        problems = [
            f"--{name.replace('_', '-')} {value}: at least {lowest[name]}"
            for name, value in values.items()
            if value is not None and value < lowest[name]
        ]
        if problems:
            raise UsageError("\n".join(problems), where="wbc-jax benchmark")
        check_out(self.out, self.columns())

    def columns(self) -> tuple[str, ...]:
        """Of the rows in `out`."""
        return COLUMNS

    def steps(self) -> int:
        """`timed_steps` with its default for this backend."""
        return self.timed_steps or (3 if on_cpu() else 20)


@dataclass(frozen=True, kw_only=True)
class ModelOptions(TimingOptions):
    """Which networks are measured, on what."""

    models: tuple[str, ...] = ("resnet50", "densenet121", "scam")
    """Networks by name; `wbc_jax.models.list_models()` lists all."""
    mode: Literal["train", "infer"] = "train"
    """A training step with its RAdam update, or class probabilities."""
    batch_size: int | None = None
    """Images per step; None: 8 on a CPU, 256 on accelerators."""
    image_size_px: int = 224
    """Side of the images, px."""
    num_classes: int = 5
    """Outputs of the head."""

    def batch(self) -> int:
        """`batch_size` with its default for this backend."""
        return self.batch_size or (8 if on_cpu() else 256)


def on_cpu() -> bool:
    """Whether the default device is a CPU; starts the jax backend."""
    import jax

    return jax.default_backend() == "cpu"

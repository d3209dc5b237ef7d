"""`benchmark probe`: an epoch of a whole sweep of linear heads beside an epoch of training the whole network."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from wbc_jax.bench.options import TimingOptions
from wbc_jax.bench.schema import Row, append_rows, describe_machine
from wbc_jax.bench.table import print_rows
from wbc_jax.bench.timing import interquartile_range, paired_ratios, time_interleaved
from wbc_jax.errors import EXIT_OK


@dataclass(frozen=True, kw_only=True)
class ProbeBenchOptions(TimingOptions):
    """Heads on features computed once, and steps of the network that the features come from, in turns."""

    models: tuple[str, ...] = ("scam_tiny",)
    """Networks by name."""
    batch_size: int = 32
    """Images per training step of the network."""
    image_size_px: int = 64
    """Side of the images, px."""
    images: int = 2048
    """Images of an epoch of the heads."""
    views: int = 4
    """Views of each image that the heads learn from."""
    heads: int = 45
    """Heads of the sweep: 15 pairs of learning rate and weight decay with 3 seeds, as `wbc-jax probe` has them."""
    epochs: int = 5
    """Epochs of one timed sweep; initial heads and standardisation are part of it."""


def run_probe(options: ProbeBenchOptions) -> int:
    """Measure an epoch of a sweep of heads against an epoch of training the whole network, per image."""
    from wbc_jax.bench.subject import Case, TrainSubject
    from wbc_jax.runtime.devices import activation_dtype

    options.check()
    machine = describe_machine()
    rows = []
    for name in options.models:
        case = Case(
            model_name=name,
            mode="train",
            batch_size=options.batch_size,
            image_size_px=options.image_size_px,
            num_classes=5,
            dtype=activation_dtype(options.precision),
        )
        network, heads = TrainSubject(case), _Heads(case, options)
        timings = time_interleaved(
            {"network": network.run, "heads": heads.run},
            warmup_steps=options.warmup_steps,
            timed_steps=options.steps(),
            repeats=options.repeats,
        )
        step, sweep = timings["network"].median, timings["heads"].median
        seen = options.images * options.epochs
        share = (
            options.batch_size / seen
        )  # seconds per image, ours over the network's, are sweep / step * share
        ratios = [ratio / share for ratio in paired_ratios(timings["heads"], timings["network"])]
        rows.append(
            Row(
                benchmark="probe",
                model=name,
                mode="train",
                variant=f"{options.heads} heads on {heads.inputs} features",
                data_mode="device-resident",
                precision="float32",
                batch_size=heads.batch_size,
                image_size_px=options.image_size_px,
                images=options.images,
                images_per_s=seen / sweep,
                step_ms=1e3 * sweep / heads.steps,
                iqr_ms=1e3 * timings["heads"].iqr / heads.steps,
                warmup_steps=options.warmup_steps,
                timed_steps=heads.steps,
                repeats=options.repeats,
                peer="training the network",
                peer_images_per_s=options.batch_size / step,
                peer_iqr_ms=1e3 * timings["network"].iqr,
                ratio=step / (sweep * share),
                ratio_iqr=interquartile_range(tuple(ratios)),
            )
        )
    if options.out is not None:
        append_rows(options.out, machine, rows)
    print_rows(machine, rows)
    return EXIT_OK


class _Heads:
    """A sweep on random features of the network's size; `run(n)` trains it n times.

    Attributes:
        inputs: features of an image.
        batch_size: images of a step.
        steps: of one sweep.
    """

    def __init__(self, case: Any, options: ProbeBenchOptions) -> None:
        import jax
        import jax.numpy as jnp
        import numpy as np

        from wbc_jax.train.probe import Features, train_heads

        size = case.image_size_px
        images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
        variables = {"params": case.initial.params, "batch_stats": case.initial.batch_stats}
        _, endpoints = jax.eval_shape(functools.partial(case.model.apply, train=False), variables, images)
        self.inputs = int(endpoints["pre_logits"].shape[-1])
        self.batch_size = min(256, options.images)
        self.steps = options.images // self.batch_size * options.epochs
        random = np.random.default_rng(0)
        shape = (options.images, options.views, self.inputs)
        features = Features(
            jnp.asarray(random.normal(size=shape), jnp.float32),
            jnp.asarray(random.integers(0, case.num_classes, options.images), jnp.int32),
        )
        seeds = 3 if options.heads % 3 == 0 else 1
        points = options.heads // seeds
        fit = functools.partial(
            train_heads,
            num_classes=case.num_classes,
            epochs=options.epochs,
            batch_size=self.batch_size,
        )
        self._arguments = (
            features,
            jnp.full(points, 1e-2, jnp.float32),
            jnp.zeros(points, jnp.float32),
            jnp.arange(seeds, dtype=jnp.int32),
        )
        self._fit = jax.jit(fit).lower(*self._arguments).compile()

    def run(self, sweeps: int) -> None:
        """Trains the sweep that many times, each awaited."""
        import jax

        for _ in range(sweeps):
            jax.block_until_ready(self._fit(*self._arguments))

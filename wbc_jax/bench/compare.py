"""`benchmark compare`: our step and its PyTorch twin, timed in turns, from the same weights on the same batch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from wbc_jax.bench.energy import energy_meter
from wbc_jax.bench.mismatch import MismatchError
from wbc_jax.bench.options import ModelOptions
from wbc_jax.bench.plot import draw_comparison
from wbc_jax.bench.schema import Machine, Row, append_rows, describe_machine
from wbc_jax.bench.step import (
    case_columns,
    make_cases,
    make_subjects,
    subject_columns,
    timing_columns,
    traffic_columns,
)
from wbc_jax.bench.table import print_rows
from wbc_jax.bench.timing import Timing, interquartile_range, paired_ratios, time_interleaved
from wbc_jax.bench.twins import build_twin, require_torch, require_twins
from wbc_jax.errors import EXIT_OK

_TOLERANCE = {4: 1e-3, 2: 5e-2}
"""Largest difference between our first loss (or probability) and the twin's, by bytes of an activation."""
_EARLY_STEPS = 8
"""RAdam's first five updates are a share of the mean gradient, from the sixth on they are Adam's: both are seen."""
_EARLY_SHARE = 0.2
"""Share of what the loss has changed by after these that the two may differ by besides: on a few small images
rounding alone makes some percent in ResNet50, between two forms of ours as well."""
_END_TOLERANCE = {4: 0.05, 2: 0.2}
"""Largest difference between the last losses, as a share of the first one."""


@dataclass(frozen=True, kw_only=True)
class CompareOptions(ModelOptions):
    """Our step against its PyTorch twin."""

    torch_compile: Literal["auto", "off", "default", "max-autotune"] = "auto"
    """Mode of torch.compile, timed beside eager PyTorch; each is a row's peer, the faster one the last row's, which is
    drawn. auto: max-autotune on CUDA, off on a CPU."""


def run_compare(options: CompareOptions) -> int:
    """Measure steps beside their PyTorch twins, in turns, from the same weights."""
    options.check()
    require_twins(options.models)
    require_torch()
    # Two libraries share the accelerator: by default jax would take three quarters of its memory at once.
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.45")
    cases = make_cases(options)
    machine = describe_machine()
    rows: list[Row] = []
    for case, ours in zip(cases, make_subjects(cases), strict=True):
        measured = _compare(case, ours, options, machine)
        rows += measured
        if options.out is not None:  # at once: an interruption costs the network under way, not all
            append_rows(options.out, machine, measured)
    print_rows(machine, rows)
    picture = None if options.out is None else draw_comparison(options.out)
    if picture is not None:
        print(f"picture: {picture}")
    return EXIT_OK


def _compare(case: Any, ours: Any, options: CompareOptions, machine: Machine) -> list[Row]:
    peers = make_peers(case, options.torch_compile)
    check_same_start(case, ours, peers)
    check_same_learning(case, ours, peers)
    contenders = {"ours": ours.run, **{label: peer.run for label, peer in peers.items()}}
    timings = time_interleaved(
        contenders,
        warmup_steps=options.warmup_steps,
        timed_steps=options.steps(),
        repeats=options.repeats,
        meter=energy_meter(machine.backend),
    )
    check_same_end(case, ours, peers)
    own = timings["ours"]
    return [
        Row(
            benchmark="compare",
            data_mode="synthetic-fixed",
            **case_columns(case),
            **timing_columns(own, case.batch_size, options),
            **subject_columns(ours, case),
            **traffic_columns(case, own, machine),
            **_peer_columns(case, own, timings[label], label, peers[label]),
        )
        for label in sorted(peers, key=lambda label: -timings[label].median)
    ]


def make_peers(case: Any, torch_compile: str = "off") -> dict[str, Any]:
    """Twins with our initial weights by label: eager, and compiled where asked for or worth it."""
    from wbc_jax.bench.torch_subject import TorchSubject, torch_device

    device = torch_device()
    if torch_compile == "auto":
        torch_compile = "max-autotune" if device == "cuda" else "off"
    variables = {"params": case.initial.params, "batch_stats": case.initial.batch_stats}
    peers: dict[str, Any] = {}
    for mode in (None,) if torch_compile == "off" else (None, torch_compile):
        twin = build_twin(case.model, case.model_name, variables)
        peer = TorchSubject(twin, case, device=device, compile_mode=mode)
        peers[peer.label] = peer
    return peers


def check_same_start(case: Any, ours: Any, peers: Mapping[str, Any]) -> None:
    """Runs the first step of all and refuses to time networks that do not compute the same.

    Raises:
        MismatchError: a first loss, or for inference a probability, differs by more than rounding.
    """
    tolerance = _TOLERANCE[np.dtype(case.dtype).itemsize]
    for contender in (ours, *peers.values()):
        contender.run(1)
    for label, peer in peers.items():
        if case.mode == "train":
            difference = abs(ours.first_loss - peer.first_loss)
        else:
            difference = float(np.max(np.abs(ours.probabilities() - peer.probabilities())))
        if not difference <= tolerance:
            what = "first losses" if case.mode == "train" else "probabilities"
            raise MismatchError(
                f"{case.model_name}: {what} of ours and of {label} differ by {difference:.3g}",
                expected=f"at most {tolerance:g}",
                benchmark="compare",
            )


def check_same_learning(case: Any, ours: Any, peers: Mapping[str, Any]) -> None:
    """Runs on to an early step, where the loss still changes much, and refuses to time optimisers that differ.

    Raises:
        MismatchError: a loss differs by more than rounding and a share of what has been learnt.
    """
    if case.mode != "train":
        return
    for contender in (ours, *peers.values()):
        contender.run(_EARLY_STEPS - 1)  # the first is done
    rounding = _TOLERANCE[np.dtype(case.dtype).itemsize]
    tolerance = rounding + _EARLY_SHARE * abs(ours.last_loss - ours.first_loss)
    _require_alike(case, ours, peers, f"after {_EARLY_STEPS} steps", tolerance)


def check_same_end(case: Any, ours: Any, peers: Mapping[str, Any]) -> None:
    """Refuses a measurement in which the contenders, after as many steps, have not learnt alike.

    Raises:
        MismatchError: the last losses differ by more than rounding grows to over many steps of training.
    """
    if case.mode != "train":
        return
    share = _END_TOLERANCE[np.dtype(case.dtype).itemsize]
    _require_alike(case, ours, peers, "after all steps", share * max(ours.last_loss, ours.first_loss))


def _require_alike(case: Any, ours: Any, peers: Mapping[str, Any], when: str, tolerance: float) -> None:
    for label, peer in peers.items():
        if not abs(ours.last_loss - peer.last_loss) <= tolerance:
            raise MismatchError(
                f"{case.model_name}: {when} our loss is {ours.last_loss:.4g}, that of {label} {peer.last_loss:.4g}, "
                f"from {ours.first_loss:.4g} at the start",
                expected=f"a difference of at most {tolerance:.3g}",
                benchmark="compare",
            )


def _peer_columns(case: Any, own: Timing, timing: Timing, label: str, peer: Any) -> dict[str, Any]:
    return {
        "peer": label,
        "peer_images_per_s": case.batch_size / timing.median,
        "peer_iqr_ms": 1e3 * timing.iqr,
        "peer_loss_after": peer.last_loss,
        "peer_joules_per_image": None if timing.joules is None else timing.joules / case.batch_size,
        "ratio": timing.median / own.median,
        "ratio_iqr": interquartile_range(paired_ratios(own, timing)),
    }

"""One network in both frameworks with the same weights, and what is compared: stages, statistics, gradients.

Random weights, random running statistics, float32; every difference is the largest over all elements.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch_twins as twins
from torch import nn

from wbc_jax.weights.merge import flatten
from wbc_jax.weights.naming import to_torch

TOLERANCE = 1e-4
NUM_CLASSES = 5
KINK_TOLERANCE = 1e-2
"""Relative norm of the difference of a whole network's gradients. Among a million activations one or two lie so
near a ReLU's kink, or are so nearly a window's second largest, that rounding decides their gradient; measured up to
3e-3. Single blocks, where that does not happen, are held to TOLERANCE in test_block_gradients.py."""

QUICK_COMPILE = {"xla_backend_optimization_level": 0}
"""Halves the compile time (densenet121's training pass: 13 s of CPU time to 6 s); evaluation compiles in full."""


class Pair(NamedTuple):
    """One network in both frameworks with the same weights.

    `relative`: differences are held to TOLERANCE times a map's largest value where that exceeds 1, for a network so
    deep that torch in float32 is further than TOLERANCE from torch in float64.
    """

    arch: str
    torch_module: nn.Module
    state: dict[str, torch.Tensor]
    stages: dict[str, str]
    model: Any
    variables: dict[str, Any]
    relative: bool = False


def make_pair(
    arch: str, torch_module: nn.Module, model: Any, stages: dict[str, str], size_px: int = 64
) -> Pair:
    """The module gets random weights; `stages` names its parts that end our endpoints."""
    twins.randomise(torch_module, size_px=size_px)
    state = {name: value.clone() for name, value in torch_module.state_dict().items()}
    return Pair(arch, torch_module, state, stages, model, twins.variables_of(arch, torch_module))


def assert_evaluation(pair: Pair, size_px: int) -> None:
    images = twins.images(size_px)
    pair.torch_module.load_state_dict(pair.state)
    theirs = twins.run(pair.torch_module, pair.stages, images, train=False)

    @jax.jit
    def evaluate(variables: Any, images: jax.Array) -> Any:
        return pair.model.apply(variables, images, train=False)

    logits, endpoints = evaluate(pair.variables, images)
    assert_close_everywhere(pair, endpoints, logits, theirs)


def assert_training(pair: Pair, size_px: int) -> None:
    """A pass with batch statistics, and the running ones after it."""
    images = twins.images(size_px)
    pair.torch_module.load_state_dict(pair.state)
    theirs = twins.run(pair.torch_module, pair.stages, images, train=True)

    @functools.partial(jax.jit, compiler_options=QUICK_COMPILE)
    def forward(variables: Any, images: jax.Array) -> Any:
        return pair.model.apply(variables, images, train=True, mutable=["batch_stats"])

    (logits, endpoints), updated = forward(pair.variables, images)
    assert_close_everywhere(pair, endpoints, logits, theirs)
    assert_statistics(pair, updated["batch_stats"], theirs, size_px)


def assert_close_everywhere(
    pair: Pair, ours: dict[str, Any], our_logits: Any, theirs: twins.Reference
) -> None:
    differences = {}
    for name, reference in theirs.endpoints.items():
        size = max(1.0, float(np.abs(reference).max())) if pair.relative else 1.0
        differences[name] = twins.largest_difference(ours[name], reference) / size
    assert set(differences) == set(pair.stages.values())
    differences["logits"] = twins.largest_difference(our_logits, theirs.logits)
    assert max(differences.values()) <= TOLERANCE, differences
    for name, reference in theirs.endpoints.items():  # of order one, or the tolerance would mean nothing
        assert 0.1 < np.abs(reference).max() < 30, name


def assert_statistics(pair: Pair, updated: Any, theirs: twins.Reference, size_px: int) -> None:
    """Updated running statistics; torch keeps the unbiased variance, so its batch part is N/(N-1) of ours."""
    counts = samples_per_norm(pair, size_px)
    ours, report = to_torch(
        pair.arch,
        flatten({"params": pair.variables["params"], "batch_stats": jax.tree.map(np.asarray, updated)}),
    )
    assert report.ok, report.lines()
    worst: dict[str, float] = {}
    for name, count in counts.items():
        old = pair.state[f"{name}.running_var"].numpy()
        ours_batch = (ours[f"{name}.running_var"] - np.float32(0.9) * old) * np.float32(count / (count - 1))
        expected = theirs.state[f"{name}.running_var"]
        worst[f"{name}.var"] = relative(np.float32(0.9) * old + ours_batch, expected)
        worst[f"{name}.mean"] = twins.largest_difference(
            ours[f"{name}.running_mean"], theirs.state[f"{name}.running_mean"]
        )
        assert not np.allclose(expected, old, rtol=1e-3), name  # it did move
    assert max(worst.values()) <= TOLERANCE, {
        name: value for name, value in worst.items() if value > TOLERANCE
    }


def relative(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float((np.abs(ours - theirs) / np.abs(theirs)).max())


def samples_per_norm(pair: Pair, image_size_px: int) -> dict[str, int]:
    """B * H * W at every norm of the torch module, seen by hooks."""
    counts: dict[str, int] = {}
    handles = [
        part.register_forward_hook(
            lambda _, inputs, __, name=name: counts.update({name: inputs[0].numel() // inputs[0].shape[1]})
        )
        for name, part in pair.torch_module.named_modules()
        if isinstance(part, nn.BatchNorm2d)
    ]
    pair.torch_module.eval()
    with torch.no_grad():
        pair.torch_module(twins.to_nchw(twins.images(image_size_px)))
    for handle in handles:
        handle.remove()
    return counts


def assert_gradients(
    pair: Pair,
    train: bool,
    size_px: int = 64,
    vanishing: tuple[str, ...] = (),
    tolerance: float = KINK_TOLERANCE,
) -> None:
    """Gradients of every parameter; those whose path ends with one of `vanishing` are zero, and rounding in both."""
    images = twins.images(size_px)
    pair.torch_module.load_state_dict(pair.state)
    theirs = twins.run(pair.torch_module, pair.stages, images, train=train, gradient=True)
    expected = twins.gradients_of(pair.arch, pair.torch_module, NUM_CLASSES)

    @functools.partial(jax.jit, compiler_options=QUICK_COMPILE)
    def gradient(params: Any, batch_stats: Any, images: jax.Array) -> Any:
        def loss(params: Any) -> Any:
            (logits, endpoints), _ = pair.model.apply(
                {"params": params, "batch_stats": batch_stats}, images, train=train, mutable=["batch_stats"]
            )
            return jnp.sum(logits * twins.cotangent(logits.shape)), (logits, endpoints)

        return jax.grad(loss, has_aux=True)(params)

    grads, (logits, endpoints) = gradient(
        pair.variables["params"], pair.variables.get("batch_stats", {}), images
    )
    assert_close_everywhere(pair, endpoints, logits, theirs)
    ours = flatten({"params": grads})
    assert ours.keys() == expected.keys()
    zero = {path for path in expected if path.endswith(vanishing)} if vanishing else set()
    for path in zero:
        assert max(np.abs(ours[path]).max(), np.abs(expected[path]).max()) < 1e-5, path
    differences = {
        path: float(np.linalg.norm(np.asarray(ours[path]) - grad) / np.linalg.norm(grad))
        for path, grad in expected.items()
        if path not in zero
    }
    wrong = {path: value for path, value in differences.items() if value > tolerance}
    assert not wrong, wrong
    assert all(np.any(np.abs(grad) > 1e-3) for path, grad in expected.items() if path not in zero)

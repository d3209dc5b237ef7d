"""One block of ours against one of torch's: output, and the gradients of every parameter and of the input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch_twins as twins
from torch import nn

from wbc_jax.weights.merge import flatten, unflatten

TOLERANCE = 1e-4


def to_flax(array: np.ndarray) -> np.ndarray:
    """torch layout to ours: convolution kernels and matrices turned, the rest as it is."""
    axes = {4: (2, 3, 1, 0), 2: (1, 0)}.get(array.ndim)
    return array if axes is None else array.transpose(axes)


def randomise(module: nn.Module, generator: np.random.Generator) -> None:
    """He-normal kernels, every norm parameter and statistic its own random number."""
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if value.ndim in (2, 4):
                drawn = generator.normal(0.0, (2 / value[0].numel()) ** 0.5, value.shape)
            elif name.endswith(("weight", "running_var")):
                drawn = generator.uniform(0.5, 1.5, value.shape)
            elif value.ndim == 1:
                drawn = generator.uniform(-0.3, 0.3, value.shape)
            else:
                continue
            value.copy_(torch.from_numpy(drawn))


def assert_same_block(
    theirs: nn.Module,
    apply: Callable[[Any, jax.Array], jax.Array],
    our_path: Callable[[str], str],
    inputs: np.ndarray,
    generator: np.random.Generator,
    train: bool,
    vanishing: tuple[str, ...] = (),
) -> None:
    """`apply(variables, x)` computes what `theirs` does, within 1e-4 of each leaf's largest gradient.

    Args:
        theirs: randomised here.
        apply: our block.
        our_path: torch name -> collection and Flax path.
        inputs: NHWC, or (B, F).
        generator: draws weights and cotangent.
        train: batch statistics or running ones.
        vanishing: parameters whose true gradient is 0.
    """
    randomise(theirs, generator)
    state = twins.state_of(theirs)
    variables = unflatten({our_path(n): to_flax(a) for n, a in state.items() if "num_batches" not in n})

    theirs.train(train)
    leaf = to_torch(inputs).requires_grad_()
    # torchvision's first ReLU of a block works in place, which a leaf of the graph does not allow.
    output = from_torch(theirs(leaf * 1.0))
    weights = generator.normal(size=tuple(output.shape)).astype(np.float32)
    (output * torch.from_numpy(weights)).sum().backward()

    @jax.jit
    def gradient(params: Any, x: jax.Array) -> Any:
        def loss(params: Any, x: jax.Array) -> Any:
            y = apply({**variables, "params": params}, x)
            return jnp.sum(y * weights), y

        return jax.grad(loss, argnums=(0, 1), has_aux=True)(params, x)

    (param_grads, input_grad), y = gradient(variables.get("params", {}), jnp.asarray(inputs))
    assert twins.largest_difference(y, output.detach().numpy()) <= TOLERANCE
    assert leaf.grad is not None
    difference = twins.largest_difference(input_grad, from_torch(leaf.grad).numpy())
    assert difference <= TOLERANCE, difference
    expected = {our_path(n): to_flax(p.grad.numpy()) for n, p in theirs.named_parameters()}
    found = flatten({"params": param_grads})
    assert found.keys() == expected.keys()
    for path, grad in expected.items():
        scale = max(float(np.abs(grad).max()), 1.0)
        assert np.abs(grad).max() > 1e-3 or path.removeprefix("params/") in vanishing, path
        assert twins.largest_difference(found[path], grad) <= TOLERANCE * scale, path


def to_torch(inputs: np.ndarray) -> torch.Tensor:
    return twins.to_nchw(inputs) if inputs.ndim == 4 else torch.from_numpy(inputs)


def from_torch(outputs: torch.Tensor) -> torch.Tensor:
    return outputs.permute(0, 2, 3, 1) if outputs.ndim == 4 else outputs

"""torchvision modules with random weights and statistics, what they compute, and the same in Flax's layout.

Weights are He-normal and every running statistic is the module's own on some random images, then disturbed: so
activations stay of order one through all layers and an absolute tolerance of 1e-4 means something. The last norm
of a residual branch is scaled to a fifth, near what training makes of it: at full scale fifty random layers
enlarge rounding so much that torch in float32 differs from torch in float64 by 2e-4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from wbc_jax.weights.merge import unflatten
from wbc_jax.weights.naming import from_torch, leaves

RESNET_STAGES = {"relu": "stem", **{f"layer{stage}": f"stage{stage}" for stage in range(1, 5)}}
DENSENET_STAGES = {
    "features.relu0": "stem",
    **{f"features.denseblock{block}": f"block{block}" for block in range(1, 5)},
    **{f"features.transition{block}": f"transition{block}" for block in range(1, 4)},
    "features.norm5": "stage4",
}
"""torchvision's submodules and the endpoints that they correspond to."""

RESIDUAL_SCALE = 0.2


@dataclass(frozen=True)
class Reference:
    """What torch computed: endpoints NHWC, logits, and after a training pass the state dict."""

    endpoints: dict[str, np.ndarray]
    logits: np.ndarray
    state: dict[str, np.ndarray]


def state_of(module: nn.Module) -> dict[str, np.ndarray]:
    return {name: value.numpy().copy() for name, value in module.state_dict().items()}


def variables_of(arch: str, module: nn.Module) -> dict[str, Any]:
    """The module's weights and statistics as Flax variables."""
    flat, report = from_torch(arch, state_of(module))
    assert report.ok, report.lines()
    return unflatten(flat)


def images(size_px: int, batch_size: int = 2, seed: int = 1) -> np.ndarray:
    """Images NHWC, partly negative, unlike their mirror image, each channel with its own mean."""
    noise = np.random.default_rng(seed).normal(size=(batch_size, size_px, size_px, 3))
    slope = np.linspace(-1.0, 1.5, size_px)
    tilted = noise + slope[:, None, None] - 0.5 * slope[None, :, None] + np.asarray([0.3, -0.4, 0.1])
    return tilted.astype(np.float32)


def randomise(module: nn.Module, size_px: int, seed: int = 0) -> nn.Module:
    """Random weights in place; statistics that suit them, disturbed by a tenth of a deviation and half a variance."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(like: torch.Tensor, low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(like.shape, generator=generator)

    last = {
        f"{name}.bn{3 if hasattr(part, 'bn3') else 2}"
        for name, part in module.named_modules()
        if hasattr(part, "downsample")
    }
    with torch.no_grad():
        for name, part in module.named_modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, nonlinearity="relu", generator=generator)
                if part.bias is not None:
                    part.bias.copy_(uniform(part.bias, -0.1, 0.1))
            elif isinstance(part, nn.Linear):
                part.weight.normal_(std=part.in_features**-0.5, generator=generator)
                part.bias.normal_(std=0.3, generator=generator)
            elif isinstance(part, nn.LayerNorm):
                part.weight.copy_(uniform(part.weight, 0.5, 1.5))
                part.bias.copy_(uniform(part.bias, -0.3, 0.3))
            elif isinstance(part, nn.MultiheadAttention):
                part.in_proj_weight.normal_(std=part.embed_dim**-0.5, generator=generator)
                part.in_proj_bias.normal_(std=0.3, generator=generator)
            elif isinstance(part, nn.BatchNorm2d):
                part.weight.copy_(uniform(part.weight, 0.5, 1.5) * (RESIDUAL_SCALE if name in last else 0.7))
                part.bias.copy_(uniform(part.bias, -0.3, 0.3))
                part.momentum = 1.0
        module.train()(to_nchw(images(size_px, batch_size=4, seed=2)))
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                deviation = part.running_var.sqrt()
                part.running_mean += 0.1 * deviation * torch.randn(deviation.shape, generator=generator)
                part.running_var *= uniform(deviation, 0.75, 1.5)
                part.momentum = 0.1
    return module


def run(
    module: nn.Module, stages: dict[str, str], batch: np.ndarray, *, train: bool, gradient: bool = False
) -> Reference:
    """One pass; with `gradient` also the backward pass of `scalar_loss`, left in the parameters' `.grad`."""
    endpoints: dict[str, np.ndarray] = {}

    def keep(path: str, name: str) -> Any:
        def hook(_: nn.Module, __: Any, output: torch.Tensor) -> None:
            # torchvision uses one ReLU module in several places of a stem, and norm5's ReLU is a function.
            value = output.detach().relu() if path == "features.norm5" else output.detach()
            endpoints.setdefault(name, value.permute(0, 2, 3, 1).numpy().copy())

        return hook

    handles = [
        module.get_submodule(path).register_forward_hook(keep(path, name)) for path, name in stages.items()
    ]
    module.train(train)
    with torch.set_grad_enabled(gradient):
        logits = module(to_nchw(batch))
        if gradient:
            module.zero_grad()
            (logits * torch.from_numpy(cotangent(tuple(logits.shape)))).sum().backward()
    for handle in handles:
        handle.remove()
    return Reference(endpoints, logits.detach().numpy().copy(), state_of(module))


def cotangent(shape: tuple[int, ...]) -> np.ndarray:
    """Fixed random weights of the logits in the scalar whose gradient is compared."""
    return np.random.default_rng(5).normal(size=shape).astype(np.float32)


def gradients_of(arch: str, module: nn.Module, num_classes: int) -> dict[str, np.ndarray]:
    """The module's gradients by Flax path."""
    named = dict(module.named_parameters())
    return {
        leaf.path: leaf.from_torch(named[leaf.torch_name].grad.numpy())
        for leaf in leaves(arch, num_classes)
        if leaf.path.startswith("params/")
    }


def to_nchw(batch: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(batch).permute(0, 3, 1, 2)


def largest_difference(ours: Any, theirs: np.ndarray) -> float:
    ours = np.asarray(ours)
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    return float(np.abs(ours - theirs).max())

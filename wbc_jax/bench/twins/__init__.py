"""PyTorch twins of the networks, with the same weights, as a user of PyTorch would train them.

Where torchvision has the network the twin is torchvision's own module; the papers' networks and the SE and EPSA
families are composed of torchvision's parts. Speed is PyTorch's at its best: channels-last memory, foreach RAdam, on
CUDA bfloat16 autocast, cudnn.benchmark and, as a second contender, torch.compile.

Importing this package does not import torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wbc_jax.errors import UsageError
from wbc_jax.models.amnet import AMNETS
from wbc_jax.models.daffnet import DAFFNETS
from wbc_jax.models.densenet import DENSENETS
from wbc_jax.models.morphology import MORPHOLOGY_PREDICTORS
from wbc_jax.models.resnet import RESNETS
from wbc_jax.models.scam import SCAMS
from wbc_jax.weights.naming import TORCHVISION_ARCHITECTURES

TWINS: tuple[str, ...] = (
    *TORCHVISION_ARCHITECTURES,
    *(
        name
        for family in (SCAMS, DAFFNETS, AMNETS, MORPHOLOGY_PREDICTORS, RESNETS, DENSENETS)
        for name in family
        if name not in TORCHVISION_ARCHITECTURES
    ),
)
"""Networks that have one."""


def require_torch() -> None:
    """UsageError with the remedy where torch or torchvision is not installed."""
    try:
        import torch  # noqa: F401

        from wbc_jax.bench.twins.library import torchvision_models

        torchvision_models()
    except ImportError as error:
        raise UsageError(
            f"the comparison needs PyTorch: {error}",
            expected="torch and torchvision",
            where="wbc-jax benchmark compare",
            remedy="pip install 'wbc-jax[test]'",
        ) from None


def require_twins(names: tuple[str, ...]) -> None:
    """UsageError for networks without a twin."""
    without = [name for name in names if name not in TWINS]
    if without:
        raise UsageError(
            f"no PyTorch twin of {', '.join(without)}",
            expected=f"some of {', '.join(TWINS)}",
            where="--models",
            remedy="measure others alone: wbc-jax benchmark step --models …",
        )


def build_twin(model: Any, name: str, variables: Mapping[str, Any]) -> Any:
    """A torch module with the weights of our network.

    It maps images `(B, 3, H, W)` to logits `(B, K)`; where our network predicts attributes, to the pair of those and
    the attributes' logits `(B, 31)`.

    Args:
        model: our network, whose fields the twin is built from.
        name: one of `TWINS`.
        variables: `{"params", "batch_stats"}` of our network.

    Raises:
        ValueError: the variables are not those of the network.
    """
    from wbc_jax.bench.twins.library import torchvision_models
    from wbc_jax.bench.twins.networks import network
    from wbc_jax.bench.twins.variables import copy_variables, torchvision_state

    if name in TORCHVISION_ARCHITECTURES:
        twin = torchvision_models().get_model(name, weights=None, num_classes=model.num_classes)
        twin.load_state_dict(torchvision_state(name, variables))
        return twin
    twin = network(model, variables["params"])
    copy_variables(twin, variables)
    return twin

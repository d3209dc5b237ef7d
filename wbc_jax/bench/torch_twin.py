"""PyTorch twins of the networks, with the same weights, as a user of PyTorch would train them.

The trunks are torchvision's own modules; SCAM is composed of them as the package's is. Speed is PyTorch's at its
best: channels-last memory, foreach RAdam, on CUDA bfloat16 autocast, cudnn.benchmark and, as a second contender,
torch.compile.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

from wbc_jax.errors import UsageError
from wbc_jax.weights.merge import branch, flatten
from wbc_jax.weights.naming import TORCHVISION_ARCHITECTURES, to_torch

TWINS: tuple[str, ...] = (*TORCHVISION_ARCHITECTURES, "scam")
_declared: list[Any] = []  # a torch.library.Library withdraws its operators when it is collected


def require_torch() -> None:
    """UsageError with the remedy where torch or torchvision is not installed."""
    try:
        import torch  # noqa: F401

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


def torchvision_models() -> ModuleType:
    """`torchvision.models`, also next to a build of torch that torchvision's compiled operators do not fit.

    Its import fails there because it registers shapes for operators that nobody declared. The networks need none
    of them, so declaring the two names is enough.
    """
    import torch

    try:
        import torchvision.models as models
    except RuntimeError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _declared.append(library)
        import torchvision.models as models
    return models


def build_twin(model: Any, name: str, variables: Mapping[str, Any]) -> Any:
    """A torch module with the weights of our network: images `(B, 3, H, W)` -> logits `(B, K)`.

    Args:
        model: our network; for `scam` its two trunks are read from it.
        name: one of `TWINS`.
        variables: `{"params", "batch_stats"}` of our network.
    """
    num_classes = model.num_classes
    if name != "scam":
        twin = torchvision_models().get_model(name, weights=None, num_classes=num_classes)
        twin.load_state_dict(_torch_state(name, variables))
        return twin
    trunks = {"resnet": model.resnet_name, "densenet": model.densenet_name}
    states = {key: _torch_state(arch, branch(variables, key)) for key, arch in trunks.items()}
    twin = _scam(model, trunks)
    _load_trunk(twin.resnet, states["resnet"])
    _load_trunk(twin.densenet, {k.removeprefix("features."): v for k, v in states["densenet"].items()})
    twin.load_state_dict(_scam_head_state(variables), strict=False)
    return twin


def _torch_state(arch: str, variables: Mapping[str, Any]) -> dict[str, Any]:
    import torch

    state, report = to_torch(arch, {path: np.asarray(leaf) for path, leaf in flatten(variables).items()})
    if not report.ok:
        raise ValueError(f"not the variables of {arch}:\n" + "\n".join(report.lines()))
    return {name: torch.from_numpy(np.array(array)) for name, array in state.items()}


def _load_trunk(module: Any, state: dict[str, Any]) -> None:
    found = module.load_state_dict(state, strict=False)
    missing = [name for name in found.missing_keys if not name.endswith("num_batches_tracked")]
    if missing or found.unexpected_keys:
        raise ValueError(f"the twin's trunk differs: missing {missing}, unexpected {found.unexpected_keys}")


def _scam_head_state(variables: Mapping[str, Any]) -> dict[str, Any]:
    """torch names of everything behind the trunks."""
    import torch

    params, stats = variables["params"], variables["batch_stats"]["attention"]["spatial_gate"]["bn"]
    state: dict[str, Any] = {}

    def conv(name: str, leaf: Mapping[str, Any]) -> None:
        state[f"{name}.weight"] = np.asarray(leaf["kernel"]).transpose(3, 2, 0, 1)
        if "bias" in leaf:
            state[f"{name}.bias"] = np.asarray(leaf["bias"])

    def linear(name: str, leaf: Mapping[str, Any]) -> None:
        state[f"{name}.weight"] = np.asarray(leaf["kernel"]).T
        state[f"{name}.bias"] = np.asarray(leaf["bias"])

    conv("project_resnet", params["project_resnet"])
    conv("project_densenet", params["project_densenet"])
    spatial, channel = params["attention"]["spatial_gate"], params["attention"]["channel_gate"]
    conv("spatial_conv", spatial["conv"])
    state["spatial_norm.weight"], state["spatial_norm.bias"] = spatial["bn"]["scale"], spatial["bn"]["bias"]
    state["spatial_norm.running_mean"], state["spatial_norm.running_var"] = stats["mean"], stats["var"]
    linear("squeeze", channel["squeeze"])
    linear("excite", channel["excite"])
    linear("hidden", params["hidden"])
    linear("logits", params["logits"])
    return {name: torch.from_numpy(np.array(array)) for name, array in state.items()}


def _scam(model: Any, trunks: Mapping[str, str]) -> Any:
    """SCAM in torch (blocks.md 5 and 10): trunks, 1x1 projections, sum, spatial gate, channel gate, head."""
    import torch
    from torch import nn

    models = torchvision_models()

    class Scam(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            resnet = models.get_model(trunks["resnet"], weights=None)
            densenet = models.get_model(trunks["densenet"], weights=None)
            names = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
            self.resnet = nn.Sequential()
            for name in names:
                self.resnet.add_module(name, getattr(resnet, name))
            self.densenet = densenet.features
            width, hidden = model.projection_features, model.hidden_features
            self.project_resnet = nn.Conv2d(resnet.fc.in_features, width, 1)
            self.project_densenet = nn.Conv2d(densenet.classifier.in_features, width, 1)
            self.spatial_conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)
            self.spatial_norm = nn.BatchNorm2d(1, momentum=0.01)
            self.squeeze = nn.Linear(width, width // 16)
            self.excite = nn.Linear(width // 16, width)
            self.hidden = nn.Linear(width, hidden)
            self.logits = nn.Linear(hidden, model.num_classes)

        def forward(self, images: Any) -> Any:
            x = self.project_resnet(self.resnet(images))
            x = x + self.project_densenet(nn.functional.relu(self.densenet(images)))  # (B, 512, 7, 7)
            maps = torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], 1)  # (B, 2, 7, 7)
            x = x * torch.sigmoid(self.spatial_norm(self.spatial_conv(maps)))
            means, maxima = x.mean((2, 3)), x.amax((2, 3))  # (B, 512)
            gate = torch.sigmoid(self._mlp(means) + self._mlp(maxima))
            x = (x * gate[:, :, None, None]).mean((2, 3))  # (B, 512)
            return self.logits(torch.relu(self.hidden(x)))

        def _mlp(self, pooled: Any) -> Any:
            return self.excite(torch.relu(self.squeeze(pooled)))

    return Scam()

"""The papers' networks in torch (blocks.md 5 to 10), composed as ours are; modules carry our names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from wbc_jax.bench.twins.gates import ChannelGate, GatherExcite, SpatialGate, SqueezeExcite
from wbc_jax.bench.twins.trunks import DenseFeatures, ResNet, densenet
from wbc_jax.models.amnet import AMNet
from wbc_jax.models.attribute_groups import GROUP_SIZES, TOTAL
from wbc_jax.models.daffnet import DAFFNet
from wbc_jax.models.densenet import DENSENETS, DenseNet
from wbc_jax.models.morphology import MORPHOLOGY_PREDICTORS, MorphologyPredictor
from wbc_jax.models.resnet import RESNETS
from wbc_jax.models.resnet import ResNet as OurResNet
from wbc_jax.models.scam import SCAM


def network(model: Any, params: Mapping[str, Any]) -> nn.Module:
    """The twin of one of our networks, with random weights.

    Args:
        model: ours.
        params: its parameters; AMNet's fix the size of the last map.

    Raises:
        ValueError: a field of the network has a value that no twin is written for.
    """
    if isinstance(model, AMNet):
        return AmnetTwin(model, params["attention"]["ge"]["kernel"].shape[:2])
    builders = {
        OurResNet: ResNet,
        DenseNet: densenet,
        SCAM: ScamTwin,
        DAFFNet: DaffnetTwin,
        MorphologyPredictor: PredictorTwin,
    }
    return builders[type(model)](model)


class ScamTwin(nn.Module):
    """Trunks, 1x1 projections, sum, spatial gate, channel gate, head."""

    def __init__(self, model: SCAM) -> None:
        super().__init__()
        _only(model, branches="both", attention="scam", fusion="add", cut="last")
        self.resnet = ResNet(OurResNet(**RESNETS[model.resnet_name], num_classes=None))
        self.densenet = DenseFeatures(DenseNet(**DENSENETS[model.densenet_name], num_classes=None))
        width, hidden = model.projection_features, model.hidden_features
        self.project_resnet = nn.Conv2d(self.resnet.channels, width, 1)
        self.project_densenet = nn.Conv2d(self.densenet.channels, width, 1)
        self.attention = nn.ModuleDict({"spatial_gate": SpatialGate(), "channel_gate": ChannelGate(width)})
        self.hidden, self.logits = nn.Linear(width, hidden), nn.Linear(hidden, model.num_classes)

    def forward(self, images: Tensor) -> Tensor:
        _, features = self.resnet.features(images)
        x = self.project_resnet(features) + self.project_densenet(self.densenet(images))  # (B, 512, 7, 7)
        x = self.attention["channel_gate"](self.attention["spatial_gate"](x))
        return self.logits(torch.relu(self.hidden(x.mean((2, 3)))))


class PredictorTwin(nn.Module):
    """MAP: (class logits (B, K), attribute logits (B, 31)); without a class head the attributes alone."""

    def __init__(self, model: MorphologyPredictor) -> None:
        super().__init__()
        _only(model, norm="batch")
        units = model.feature_units
        self.trunk = ResNet(OurResNet(**RESNETS[model.trunk_name], num_classes=units))
        self.attribute_heads = nn.Linear(units, TOTAL)
        self.logits = None if model.num_classes is None else nn.Linear(units, model.num_classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor] | Tensor:
        features = self.trunk(images)
        attributes = self.attribute_heads(features)
        return attributes if self.logits is None else (self.logits(features), attributes)


class EncoderTwin(nn.Module):
    """MAE: attribute probabilities (B, 31) -> (B, 128)."""

    def __init__(self, padding: str) -> None:
        super().__init__()
        for index, size in enumerate(GROUP_SIZES):
            self.add_module(f"expand_{index}", nn.Linear(size, 10 * size))
            self.add_module(f"row_{index}", nn.Linear(10 * size, len(GROUP_SIZES)))
        for index, (inputs, outputs, kernel) in enumerate(((1, 8, 1), (8, 64, 3), (64, 128, 5)), start=1):
            pad = kernel // 2 if padding == "same" else 0
            self.add_module(f"conv{index}", nn.Conv2d(inputs, outputs, kernel, padding=pad))
            self.add_module(f"bn{index}", nn.BatchNorm2d(outputs))

    def forward(self, probabilities: Tensor) -> Tensor:
        rows = []
        for index, part in enumerate(probabilities.split(GROUP_SIZES, 1)):
            hidden = torch.sigmoid(self.get_submodule(f"expand_{index}")(part))
            rows.append(self.get_submodule(f"row_{index}")(hidden))
        x = torch.stack(rows, 1)[:, None]  # (B, 1, 11, 11)
        for index in (1, 2, 3):
            x = torch.relu(self.get_submodule(f"bn{index}")(self.get_submodule(f"conv{index}")(x)))
        return x.mean((2, 3))


class DaffnetTwin(nn.Module):
    """Semantic branch beside attribute predictor and encoder; (class logits, attribute logits)."""

    def __init__(self, model: DAFFNet) -> None:
        super().__init__()
        _only(model, morphology="map_mae", map_gradient=False, fold_map=False)
        units = model.semantic_units
        fields = {**RESNETS[model.semantic_name], "spatial_gate": model.spatial_gate}
        self.semantic = ResNet(OurResNet(**fields, num_classes=units))
        predictor = MorphologyPredictor(**MORPHOLOGY_PREDICTORS[model.map_name], num_classes=None)
        self.map, self.mae = PredictorTwin(predictor), EncoderTwin(model.mae_padding)
        self.logits = nn.Linear(units + 128, model.num_classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        attributes = self.map(images)
        groups = attributes.detach().float().split(GROUP_SIZES, 1)  # the class loss ends here
        code = self.mae(torch.cat([group.softmax(1) for group in groups], 1))  # (B, 128)
        return self.logits(torch.cat([self.semantic(images), code], 1)), attributes


class AmnetTwin(nn.Module):
    """S = SE(P(X1) + X5), G = GE(X5), logits of the mean of S + G + X5."""

    def __init__(self, model: AMNet, map_size: tuple[int, int]) -> None:
        super().__init__()
        _only(model, first_features="pooled", ge_kind="theta", ge_extent="global")
        _only(model, use_se=True, use_ge=True, use_fusion=True)
        self.trunk = ResNet(OurResNet(**RESNETS[model.trunk_name], num_classes=None))
        self.attention = Focus(self.trunk.stem_channels, self.trunk.channels, map_size)
        self.fc = nn.Linear(self.trunk.channels, model.num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.attention(*self.trunk.features(images)).mean((2, 3)))


class Focus(nn.Module):
    """WBC-AMNet's focalised attention on the stem and the last map."""

    def __init__(self, first: int, last: int, map_size: tuple[int, int]) -> None:
        super().__init__()
        self.project = nn.Conv2d(first, last, 1, bias=False)
        self.project_bn = nn.BatchNorm2d(last)
        self.se = SqueezeExcite(last)
        self.ge = GatherExcite(last, map_size)

    def forward(self, first: Tensor, last: Tensor) -> Tensor:
        pooled = nn.functional.adaptive_avg_pool2d(first, (last.shape[2], last.shape[3]))
        fused = self.project_bn(self.project(pooled)) + last
        return self.se(fused) + self.ge(last) + last


def _only(model: Any, **wanted: Any) -> None:
    for name, value in wanted.items():
        if getattr(model, name) != value:
            raise ValueError(f"no twin of {type(model).__name__} with {name}={getattr(model, name)!r}")

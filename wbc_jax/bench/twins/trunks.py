"""ResNet with all of its relatives, and DenseNet, in torch: torchvision's form and names, our fields."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from wbc_jax.bench.twins.gates import PyramidSqueeze, SpatialGate, SqueezeExcite
from wbc_jax.bench.twins.library import torchvision_models


class Block(nn.Module):
    """torchvision's basic block or bottleneck, with what our ResNet may put between or behind its convolutions."""

    def __init__(self, net: Any, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * width if net.bottleneck else width
        if net.bottleneck:
            inner = width * net.width_per_group // 64 * net.groups
            self.conv1 = nn.Conv2d(inputs, inner, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(inner)
            if net.mixing == "psa":
                self.psa = PyramidSqueeze(inner, stride, net.psa_groups)
            else:
                self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, groups=net.groups, bias=False)
            self.bn2 = nn.BatchNorm2d(inner)
            self.conv3 = nn.Conv2d(inner, outputs, 1, bias=False)
            self.bn3 = nn.BatchNorm2d(outputs)
        else:
            self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(outputs)
            self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(outputs)
        self.bottleneck, self.relu = net.bottleneck, nn.ReLU(inplace=True)
        self.mix = "psa" if net.mixing == "psa" and net.bottleneck else "conv2"
        self.se = SqueezeExcite(outputs) if net.squeeze_excite else nn.Identity()
        self.spatial_gate = SpatialGate() if net.spatial_gate == "block" else nn.Identity()
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.psa(y) if self.mix == "psa" else self.conv2(y))
        if self.bottleneck:
            y = self.bn3(self.conv3(self.relu(y)))
        y = self.spatial_gate(self.se(y))
        return self.relu(y + self.downsample(x))


class ResNet(nn.Module):
    """The twin of any of our ResNets; `features` gives what AMNet reads."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        padding = net.stem_kernel // 2
        self.conv1 = nn.Conv2d(3, net.width, net.stem_kernel, net.stem_stride, padding, bias=False)
        self.bn1, self.relu = nn.BatchNorm2d(net.width), nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1) if net.stem_pool else nn.Identity()
        channels, stages = net.width, []
        for stage, size in enumerate(net.stage_sizes, start=1):
            width, blocks = net.width * 2 ** (stage - 1), []
            for index in range(size):
                stride = {1: 1, 4: net.last_stride}.get(stage, 2) if index == 0 else 1
                blocks.append(Block(net, channels, width, stride))
                channels = 4 * width if net.bottleneck else width
            stages.append(nn.Sequential(*blocks))
            self.add_module(f"layer{stage}", stages[-1])
        self.stages = [f"layer{stage}" for stage in range(1, len(stages) + 1)]
        self.spatial_gate = SpatialGate() if net.spatial_gate == "last" else nn.Identity()
        self.fc = nn.Identity() if net.num_classes is None else nn.Linear(channels, net.num_classes)
        self.channels, self.stem_channels = channels, net.width

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Stem before its pooling, and the last stage's map."""
        stem = self.relu(self.bn1(self.conv1(images)))
        x = self.maxpool(stem)
        for name in self.stages:
            x = self.get_submodule(name)(x)
        return stem, self.spatial_gate(x)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.features(images)[1].mean((2, 3)))


def densenet(net: Any) -> Any:
    """torchvision's DenseNet; for our small one with another stem and an unpooled last transition."""
    trunk = torchvision_models().DenseNet(
        growth_rate=net.growth,
        block_config=net.block_sizes,
        num_init_features=net.width,
        num_classes=net.num_classes or 1,
    )
    if net.stem_kernel != 7 or net.stem_stride != 2:
        padding = net.stem_kernel // 2
        trunk.features.conv0 = nn.Conv2d(3, net.width, net.stem_kernel, net.stem_stride, padding, bias=False)
    if not net.stem_pool:
        trunk.features.pool0 = nn.Identity()
    if not net.last_transition_pool:
        trunk.features.get_submodule(f"transition{len(net.block_sizes) - 1}").pool = nn.Identity()
    return trunk


class DenseFeatures(nn.Module):
    """A DenseNet's map before pooling."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        whole = densenet(net)
        self.features, self.channels = whole.features, whole.classifier.in_features

    def forward(self, images: Tensor) -> Tensor:
        return torch.relu(self.features(images))

"""SE, gather-excite and WBC-AMNet's attention written again in torch from their description (blocks.md 4, 7, 9)."""

from __future__ import annotations

import math

import torch
from torch import nn


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, channels // 16)
        self.excite = nn.Linear(channels // 16, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = torch.sigmoid(self.excite(torch.relu(self.squeeze(x.mean(dim=(2, 3))))))
        return x * gate[:, :, None, None]


class SEBottleneck(nn.Module):
    """ResNeXt's bottleneck, the channels gated before the addition."""

    def __init__(self, inputs: int, width: int, inner: int, groups: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.se = SqueezeExcite(4 * width)
        self.downsample_conv = nn.Conv2d(inputs, 4 * width, 1, stride, bias=False)
        self.downsample_bn = nn.BatchNorm2d(4 * width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        y = self.se(self.bn3(self.conv3(y)))
        return torch.relu(y + self.downsample_bn(self.downsample_conv(x)))


class GatherExcite(nn.Module):
    """x times its gate."""

    def __init__(self, kind: str, extent: str, channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.kind, self.extent = kind, extent
        if kind != "theta_minus" and extent == "global":
            self.conv = nn.Conv2d(channels, channels, size, groups=channels, bias=False)
            self.bn = nn.BatchNorm2d(channels)
        elif kind != "theta_minus":
            for step in range(1, int(math.log2(int(extent))) + 1):
                conv = nn.Conv2d(channels, channels, 3, 2, 1, groups=channels, bias=False)
                self.add_module(f"conv{step}", conv)
                self.add_module(f"bn{step}", nn.BatchNorm2d(channels))
        if kind == "theta_plus":
            self.squeeze = nn.Linear(channels, channels // 16)
            self.excite = nn.Linear(channels // 16, channels)

    def gather(self, x: torch.Tensor) -> torch.Tensor:
        if self.kind == "theta_minus":
            if self.extent == "global":
                return x.mean(dim=(2, 3), keepdim=True)
            extent = int(self.extent)
            return nn.functional.avg_pool2d(x, 2 * extent - 1, extent, extent - 1, count_include_pad=False)
        if self.extent == "global":
            return self.bn(self.conv(x))
        steps = int(math.log2(int(self.extent)))
        for step in range(1, steps + 1):
            x = self.get_submodule(f"bn{step}")(self.get_submodule(f"conv{step}")(x))
            x = torch.relu(x) if step < steps else x
        return x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gathered = self.gather(x)
        if self.kind == "theta_plus":
            rows = torch.relu(gathered).permute(0, 2, 3, 1)
            gathered = self.excite(torch.relu(self.squeeze(rows))).permute(0, 3, 1, 2)
        return x * torch.sigmoid(nn.functional.interpolate(gathered, x.shape[2:], mode="nearest"))

"""Attention gates in torch, as their authors and timm write them."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SqueezeExcite(nn.Module):
    """Channels scaled by sigmoid(MLP(mean over positions))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(channels // 16, 1)
        self.squeeze, self.excite = nn.Conv2d(channels, hidden, 1), nn.Conv2d(hidden, channels, 1)
        self.relu = nn.ReLU(inplace=True)

    def weigh(self, x: Tensor) -> Tensor:
        """(B, C, 1, 1)."""
        return torch.sigmoid(self.excite(self.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weigh(x)


class GatherExcite(nn.Module):
    """theta, global: a depthwise kernel as large as the map, its norm, a sigmoid; (B, C, 1, 1)."""

    def __init__(self, channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, size, groups=channels, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.bn(self.conv(x)))


class SpatialGate(nn.Module):
    """Positions scaled by sigmoid(BN(conv7x7([max, mean] over channels)))."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)
        self.bn = nn.BatchNorm2d(1, momentum=0.01)

    def forward(self, x: Tensor) -> Tensor:
        maps = torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], 1)  # (B, 2, H, W)
        return x * torch.sigmoid(self.bn(self.conv(maps)))


class ChannelGate(nn.Module):
    """Channels scaled by sigmoid(MLP(mean) + MLP(max)), one MLP."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(channels // 16, 1)
        self.squeeze, self.excite = nn.Linear(channels, hidden), nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        means, maxima = x.mean((2, 3)), x.amax((2, 3))  # (B, C)
        return x * torch.sigmoid(self._mlp(means) + self._mlp(maxima))[:, :, None, None]

    def _mlp(self, pooled: Tensor) -> Tensor:
        return self.excite(torch.relu(self.squeeze(pooled)))


class PyramidSqueeze(nn.Module):
    """Four convolutions side by side; their shared gate, softmax over the four, scales each."""

    def __init__(self, channels: int, stride: int, groups: tuple[int, ...]) -> None:
        super().__init__()
        width = channels // 4
        self.conv3 = nn.Conv2d(channels, width, 3, stride, 1, groups=groups[0], bias=False)
        self.conv5 = nn.Conv2d(channels, width, 5, stride, 2, groups=groups[1], bias=False)
        self.conv7 = nn.Conv2d(channels, width, 7, stride, 3, groups=groups[2], bias=False)
        self.conv9 = nn.Conv2d(channels, width, 9, stride, 4, groups=groups[3], bias=False)
        hidden = max(width // 16, 1)
        self.squeeze, self.excite = nn.Conv2d(width, hidden, 1), nn.Conv2d(hidden, width, 1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        maps = [self.conv3(x), self.conv5(x), self.conv7(x), self.conv9(x)]
        weights = torch.stack([self._weigh(y) for y in maps], 1).softmax(1)  # (B, 4, C / 4, 1, 1)
        scaled = torch.stack(maps, 1) * weights  # (B, 4, C / 4, H, W)
        return scaled.flatten(1, 2).contiguous(memory_format=torch.channels_last)  # (B, C, H, W)

    def _weigh(self, y: Tensor) -> Tensor:
        return torch.sigmoid(self.excite(self.relu(self.squeeze(y.mean((2, 3), keepdim=True)))))

"""DAFFNet's blocks written again in torch from their description alone (blocks.md 6 and 8)."""

from __future__ import annotations

import torch
from torch import nn


class PyramidSqueeze(nn.Module):
    """Four grouped convolutions, one shared gate, softmax over the branches after the sigmoid."""

    def __init__(self, channels: int, stride: int, groups: tuple[int, ...] = (1, 4, 8, 16)) -> None:
        super().__init__()
        width = channels // 4
        for kernel, count in zip((3, 5, 7, 9), groups, strict=True):
            conv = nn.Conv2d(channels, width, kernel, stride, kernel // 2, groups=count, bias=False)
            self.add_module(f"conv{kernel}", conv)
        self.squeeze = nn.Linear(width, max(width // 16, 1))
        self.excite = nn.Linear(max(width // 16, 1), width)

    def weigh(self, branch: torch.Tensor) -> torch.Tensor:
        gate = torch.sigmoid(self.excite(torch.relu(self.squeeze(branch.mean(dim=(2, 3))))))
        return gate[:, :, None, None]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        branches = [self.get_submodule(f"conv{kernel}")(x) for kernel in (3, 5, 7, 9)]
        weights = torch.stack([self.weigh(branch) for branch in branches], dim=1).softmax(dim=1)
        return torch.cat([branch * weights[:, i] for i, branch in enumerate(branches)], dim=1)


class SpatialGate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)
        self.bn = nn.BatchNorm2d(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = torch.cat([x.amax(dim=1, keepdim=True), x.mean(dim=1, keepdim=True)], dim=1)
        return x * torch.sigmoid(self.bn(self.conv(maps)))


class EPSABlock(nn.Module):
    """A bottleneck whose 3x3 is pyramid squeeze attention, gated in space behind its last norm."""

    def __init__(self, inputs: int, width: int, stride: int, gate: bool) -> None:
        super().__init__()
        outputs = 4 * width
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.psa = PyramidSqueeze(width, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.spatial_gate = SpatialGate() if gate else nn.Identity()
        self.downsample_conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        self.downsample_bn = nn.BatchNorm2d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.psa(y)))
        y = self.spatial_gate(self.bn3(self.conv3(y)))
        return torch.relu(y + self.downsample_bn(self.downsample_conv(x)))


class Encoder(nn.Module):
    """Eleven rows of eleven numbers from the 31 probabilities, three convolutions, the mean."""

    sizes = (2, 2, 6, 2, 2, 2, 2, 3, 4, 4, 2)

    def __init__(self, padding: str) -> None:
        super().__init__()
        for index, size in enumerate(self.sizes):
            self.add_module(f"expand_{index}", nn.Linear(size, 10 * size))
            self.add_module(f"row_{index}", nn.Linear(10 * size, 11))
        for index, (inputs, outputs, kernel) in enumerate(((1, 8, 1), (8, 64, 3), (64, 128, 5)), start=1):
            pad = "same" if padding == "same" else 0
            self.add_module(f"conv{index}", nn.Conv2d(inputs, outputs, kernel, padding=pad))
            self.add_module(f"bn{index}", nn.BatchNorm2d(outputs))

    def forward(self, probabilities: torch.Tensor) -> torch.Tensor:
        rows = []
        for index, part in enumerate(probabilities.split(self.sizes, dim=1)):
            hidden = torch.sigmoid(self.get_submodule(f"expand_{index}")(part))
            rows.append(self.get_submodule(f"row_{index}")(hidden))
        x = torch.stack(rows, dim=1)[:, None]
        for index in (1, 2, 3):
            conv, norm = self.get_submodule(f"conv{index}"), self.get_submodule(f"bn{index}")
            x = torch.relu(norm(conv(x)))
        return x.mean(dim=(2, 3))

"""MobileNetV1, dual path networks and Inception-v4 in plain torch, under timm's attribute names.

Written from the papers and from timm's state-dict keys, layer by layer and without our tables, so that a mistake in
one of the two shows. torchvision has none of these networks.
"""

from __future__ import annotations

import torch
from torch import nn


class MobileNetV1(nn.Module):
    """timm's `mobilenetv1_100`."""

    def __init__(
        self,
        num_classes: int,
        widths: tuple[int, ...] = (64, 128, 256, 512, 1024),
        depths: tuple[int, ...] = (1, 2, 2, 6, 2),
    ) -> None:
        super().__init__()
        self.conv_stem = nn.Conv2d(3, 32, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        stages, channels = [], 32
        for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            blocks = []
            for index in range(depth):
                blocks.append(_Separable(channels, width, 2 if stage > 0 and index == 0 else 1))
                channels = width
            stages.append(nn.Sequential(*blocks))
        self.blocks = nn.Sequential(*stages)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.relu6(self.bn1(self.conv_stem(x)))
        return self.classifier(self.blocks(x).mean((2, 3)))


class _Separable(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv_dw = nn.Conv2d(inputs, inputs, 3, stride=stride, padding=1, groups=inputs, bias=False)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv_pw = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.relu6(self.bn1(self.conv_dw(x)))
        return nn.functional.relu6(self.bn2(self.conv_pw(x)))


class DPN(nn.Module):
    """timm's `dpn68` and `dpn92`: `first` is the width of the first stage's residual path."""

    def __init__(
        self,
        num_classes: int,
        depths: tuple[int, ...],
        growths: tuple[int, ...],
        first: int,
        middle: int,
        stem: tuple[int, int],
        groups: int = 32,
    ) -> None:
        super().__init__()
        channels, kernel = stem
        self.features = nn.Sequential()
        self.features.add_module("conv1_1", _ConvBn(3, channels, kernel, 2, kernel // 2))
        self.features.add_module("conv1_pool", nn.MaxPool2d(3, 2, 1))
        for stage, (depth, growth) in enumerate(zip(depths, growths, strict=True)):
            width, inner = first << stage, middle << stage
            for index in range(depth):
                kind = "" if index else ("c1x1_w_s1" if stage == 0 else "c1x1_w_s2")
                block = _DualPath(channels, inner, width, growth, groups, kind)
                self.features.add_module(f"conv{stage + 2}_{index + 1}", block)
                channels = channels + growth if index else width + 3 * growth
        self.features.add_module("conv5_bn_ac", _NormRelu(channels))
        self.classifier = nn.Conv2d(channels, num_classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x).mean((2, 3), keepdim=True)).flatten(1)


class _NormRelu(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels, eps=1e-3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.relu(self.bn(x))


class _NormReluConv(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(inputs, eps=1e-3)
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(nn.functional.relu(self.bn(x)))


class _DualPath(nn.Module):
    def __init__(self, inputs: int, inner: int, width: int, growth: int, groups: int, kind: str) -> None:
        super().__init__()
        self.width, self.kind = width, kind
        stride = 2 if kind.endswith("2") else 1
        if kind:
            self.add_module(kind, _NormReluConv(inputs, width + 2 * growth, stride=stride))
        self.c1x1_a = _NormReluConv(inputs, inner)
        self.c3x3_b = _NormReluConv(inner, inner, 3, stride, groups)
        self.c1x1_c = _NormReluConv(inner, width + growth)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        residual, *dense = (self.get_submodule(self.kind)(x) if self.kind else x).tensor_split(
            [self.width], 1
        )
        new_residual, new_dense = self.c1x1_c(self.c3x3_b(self.c1x1_a(x))).tensor_split([self.width], 1)
        return torch.cat([residual + new_residual, *dense, new_dense], 1)


class _ConvBn(nn.Module):
    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int] = 1,
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.relu(self.bn(self.conv(x)))


def _row(inputs: int, outputs: int, size: int) -> _ConvBn:
    return _ConvBn(inputs, outputs, (1, size), padding=(0, size // 2))


def _column(inputs: int, outputs: int, size: int) -> _ConvBn:
    return _ConvBn(inputs, outputs, (size, 1), padding=(size // 2, 0))


class _Concat(nn.Module):
    """Submodules side by side."""

    def __init__(self, **branches: nn.Module) -> None:
        super().__init__()
        for name, branch in branches.items():
            self.add_module(name, branch)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([branch(x) for branch in self.children()], 1)


def _inside_average() -> nn.Module:
    return nn.AvgPool2d(3, 1, 1, count_include_pad=False)


def _stem_4a() -> nn.Module:
    return _Concat(
        branch0=nn.Sequential(_ConvBn(160, 64), _ConvBn(64, 96, 3)),
        branch1=nn.Sequential(_ConvBn(160, 64), _row(64, 64, 7), _column(64, 64, 7), _ConvBn(64, 96, 3)),
    )


def _inception_a() -> nn.Module:
    return _Concat(
        branch0=_ConvBn(384, 96),
        branch1=nn.Sequential(_ConvBn(384, 64), _ConvBn(64, 96, 3, padding=1)),
        branch2=nn.Sequential(_ConvBn(384, 64), _ConvBn(64, 96, 3, padding=1), _ConvBn(96, 96, 3, padding=1)),
        branch3=nn.Sequential(_inside_average(), _ConvBn(384, 96)),
    )


def _reduction_a() -> nn.Module:
    return _Concat(
        branch0=_ConvBn(384, 384, 3, 2),
        branch1=nn.Sequential(_ConvBn(384, 192), _ConvBn(192, 224, 3, padding=1), _ConvBn(224, 256, 3, 2)),
        branch2=nn.MaxPool2d(3, 2),
    )


def _inception_b() -> nn.Module:
    return _Concat(
        branch0=_ConvBn(1024, 384),
        branch1=nn.Sequential(_ConvBn(1024, 192), _row(192, 224, 7), _column(224, 256, 7)),
        branch2=nn.Sequential(
            _ConvBn(1024, 192),
            _column(192, 192, 7),
            _row(192, 224, 7),
            _column(224, 224, 7),
            _row(224, 256, 7),
        ),
        branch3=nn.Sequential(_inside_average(), _ConvBn(1024, 128)),
    )


def _reduction_b() -> nn.Module:
    return _Concat(
        branch0=nn.Sequential(_ConvBn(1024, 192), _ConvBn(192, 192, 3, 2)),
        branch1=nn.Sequential(
            _ConvBn(1024, 256), _row(256, 256, 7), _column(256, 320, 7), _ConvBn(320, 320, 3, 2)
        ),
        branch2=nn.MaxPool2d(3, 2),
    )


class _InceptionC(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.branch0 = _ConvBn(1536, 256)
        self.branch1_0 = _ConvBn(1536, 384)
        self.branch1_1a, self.branch1_1b = _row(384, 256, 3), _column(384, 256, 3)
        self.branch2_0 = _ConvBn(1536, 384)
        self.branch2_1, self.branch2_2 = _column(384, 448, 3), _row(448, 512, 3)
        self.branch2_3a, self.branch2_3b = _row(512, 256, 3), _column(512, 256, 3)
        self.branch3 = nn.Sequential(_inside_average(), _ConvBn(1536, 256))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one = self.branch1_0(x)
        two = self.branch2_2(self.branch2_1(self.branch2_0(x)))
        forks = [self.branch1_1a(one), self.branch1_1b(one), self.branch2_3a(two), self.branch2_3b(two)]
        return torch.cat([self.branch0(x), *forks, self.branch3(x)], 1)


class InceptionV4(nn.Module):
    """timm's `inception_v4`."""

    def __init__(self, num_classes: int, repeats: tuple[int, int, int] = (4, 7, 3)) -> None:
        super().__init__()
        self.features = nn.Sequential(
            _ConvBn(3, 32, 3, 2),
            _ConvBn(32, 32, 3),
            _ConvBn(32, 64, 3, padding=1),
            _Concat(maxpool=nn.MaxPool2d(3, 2), conv=_ConvBn(64, 96, 3, 2)),
            _stem_4a(),
            _Concat(conv=_ConvBn(192, 192, 3, 2), maxpool=nn.MaxPool2d(3, 2)),
            *(_inception_a() for _ in range(repeats[0])),
            _reduction_a(),
            *(_inception_b() for _ in range(repeats[1])),
            _reduction_b(),
            *(_InceptionC() for _ in range(repeats[2])),
        )
        self.last_linear = nn.Linear(1536, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last_linear(self.features(x).mean((2, 3)))

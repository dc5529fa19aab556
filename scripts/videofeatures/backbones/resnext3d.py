"""ResNeXt-101 in three dimensions (Hara et al., CVPR 2018, arXiv:1711.09577).

No library has this network. Names and sizes of its layers are those of the
published `resnext101.pth`, so that it loads strictly: 48,340,816 parameters.
"""

from __future__ import annotations

import torch
from torch import nn

CARDINALITY = 32
EXPANSION = 2


class Bottleneck(nn.Module):
    """1×1×1, grouped 3×3×3 and 1×1×1 convolutions around a residual connection."""

    def __init__(self, in_channels: int, planes: int, stride: int, downsample: nn.Module | None):
        super().__init__()
        out_channels = planes * EXPANSION
        self.conv1 = nn.Conv3d(in_channels, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm3d(planes)
        self.conv2 = nn.Conv3d(planes, planes, 3, stride, 1, groups=CARDINALITY, bias=False)
        self.bn2 = nn.BatchNorm3d(planes)
        self.conv3 = nn.Conv3d(planes, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm3d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        residual = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.relu(self.bn3(self.conv3(x)) + residual)


class ResNeXt3D(nn.Module):
    """Clips (N, 3, frames, height, width) to class scores (N, num_classes).

    Trained on 16 frames of 112×112, which leave 1×4×4 positions to be averaged.
    """

    def __init__(self, num_blocks: tuple[int, int, int, int], num_classes: int = 400):
        super().__init__()
        self.conv1 = nn.Conv3d(3, 64, 7, (1, 2, 2), 3, bias=False)
        self.bn1 = nn.BatchNorm3d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool3d(3, 2, 1)
        in_channels = 64
        for number, (blocks, planes) in enumerate(
            zip(num_blocks, (128, 256, 512, 1024), strict=True), start=1
        ):
            layer = self._layer(in_channels, planes, blocks, stride=1 if number == 1 else 2)
            self.add_module(f"layer{number}", layer)
            in_channels = planes * EXPANSION
        self.fc = nn.Linear(in_channels, num_classes)

    @staticmethod
    def _layer(in_channels: int, planes: int, blocks: int, stride: int) -> nn.Sequential:
        out_channels = planes * EXPANSION
        shortcut_b = nn.Sequential(
            nn.Conv3d(in_channels, out_channels, 1, stride, bias=False),
            nn.BatchNorm3d(out_channels),
        )
        first = Bottleneck(in_channels, planes, stride, shortcut_b)
        others = (Bottleneck(out_channels, planes, 1, None) for _ in range(blocks - 1))
        return nn.Sequential(first, *others)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean(dim=(2, 3, 4)))


def resnext101() -> nn.Module:
    """ResNeXt-101, 400 classes of Kinetics, 2048 features before `fc`."""
    return ResNeXt3D((3, 4, 23, 3))

"""ResNet-152 on images and ResNeXt-101 on clips: bottleneck residual networks, in 2-d and 3-d.

Layers are named as in torchvision, whose names the published `resnext101.pth` has too, so
that both load strictly: 60,192,808 and 48,340,816 parameters. No library has the second;
torchvision has the first, but importing it takes every job 1.8 s, nearly as long as torch
itself (measured, torchvision 0.29). The tests hold the two to be one and the same network.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

Maker = Callable[..., nn.Module]


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions around a residual connection; the 3×3 has the stride."""

    def __init__(
        self,
        conv: Maker,
        norm: Maker,
        in_channels: int,
        planes: int,
        out_channels: int,
        stride: int,
        groups: int,
    ):
        super().__init__()
        self.conv1 = conv(in_channels, planes, 1, bias=False)
        self.bn1 = norm(planes)
        self.conv2 = conv(planes, planes, 3, stride, 1, groups=groups, bias=False)
        self.bn2 = norm(planes)
        self.conv3 = conv(planes, out_channels, 1, bias=False)
        self.bn3 = norm(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                conv(in_channels, out_channels, 1, stride, bias=False), norm(out_channels)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        residual = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.relu(self.bn3(self.conv3(x)) + residual)


class ResNet(nn.Module):
    """Images (N, 3, H, W), or clips (N, 3, frames, H, W), to class scores (N, num_classes)."""

    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    layer4: nn.Sequential

    def __init__(
        self,
        num_dims: int,
        num_blocks: tuple[int, int, int, int],
        *,
        planes: int,
        out_channels: int,
        groups: int,
        num_classes: int,
    ):
        """Build an untrained network.

        Args:
            num_dims: 2 for images, 3 for clips.
            num_blocks: of each of the four layers.
            planes, out_channels: of the first layer; each following one has twice as many.
            groups: of the 3×3 convolutions.
        """
        super().__init__()
        makers: dict[int, tuple[Maker, Maker, Maker]] = {
            2: (nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d),
            3: (nn.Conv3d, nn.BatchNorm3d, nn.MaxPool3d),
        }
        conv, norm, pool = makers[num_dims]
        # The first convolution keeps the rate of the frames.
        first_stride = (2, 2) if num_dims == 2 else (1, 2, 2)
        self.conv1 = conv(3, 64, 7, first_stride, 3, bias=False)
        self.bn1 = norm(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = pool(3, 2, 1)
        in_channels = 64
        for number, blocks in enumerate(num_blocks):
            layer = nn.Sequential()
            for block in range(blocks):
                stride = 2 if number and not block else 1
                layer.append(
                    Bottleneck(conv, norm, in_channels, planes, out_channels, stride, groups)
                )
                in_channels = out_channels
            self.add_module(f"layer{number + 1}", layer)
            planes, out_channels = 2 * planes, 2 * out_channels
        self.fc = nn.Linear(in_channels, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.flatten(2).mean(dim=2))


def resnet152() -> nn.Module:
    """Return ResNet-152 (He et al., CVPR 2016): 1000 classes of ImageNet, 2048 before `fc`."""
    return ResNet(2, (3, 8, 36, 3), planes=64, out_channels=256, groups=1, num_classes=1000)


def resnext101() -> nn.Module:
    """Return 3D ResNeXt-101 (Hara et al., CVPR 2018): 400 classes of Kinetics, 2048 before `fc`."""
    return ResNet(3, (3, 4, 23, 3), planes=128, out_channels=256, groups=32, num_classes=400)

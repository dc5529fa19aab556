"""EfficientNet-Lite, from the package `efficientnet-lite-pytorch`."""

from __future__ import annotations

from torch import nn


def efficientnet_lite0() -> nn.Module:
    """Return EfficientNet-Lite0: (N, 3, 224, 224) to (N, 1000), 1280 features before `_fc`."""
    from efficientnet_lite_pytorch import EfficientNet

    return EfficientNet.from_name("efficientnet-lite0")

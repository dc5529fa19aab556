"""torchvision's classifiers of images and of videos: `resnet50`, `swin3d_t/KINETICS400_V1`."""

from __future__ import annotations

import re
from typing import Any

import torch
import torchvision
from torch import nn

from videofeatures.decoding.view import View
from videofeatures.errors import UserError
from videofeatures.networks.backbones import Backbone
from videofeatures.networks.backbones.families import did_you_mean
from videofeatures.networks.backbones.transforms import (
    channels,
    pixels,
    square,
    view_of_resize,
)

HERE = "videofeatures.networks.backbones.from_torchvision"
IMAGES, VIDEOS = torchvision.models, torchvision.models.video
DOCUMENTED = re.compile(r"`(frame_rate|clip_len)=([\d.]+)`")
"""How torchvision says what its weights for videos were evaluated with."""


def describe(name: str) -> Backbone:
    """Return torchvision's network NAME, fed as its weights NAME/WEIGHTS want it.

    Without weights, they are torchvision's default ones.

    Raises:
        UserError: there is no such network, or no such weights of it.
    """
    name, _, weights_name = name.partition("/")
    videos = torchvision.models.list_models(module=VIDEOS)
    images = torchvision.models.list_models(module=IMAGES)
    if name not in (*images, *videos):
        hint = did_you_mean(name, [*images, *videos])
        raise UserError(f"torchvision has no network {name!r}{hint}")
    known = torchvision.models.get_model_weights(name)
    by_name = {entry.name: entry for entry in known}
    if weights_name and weights_name not in by_name:
        raise UserError(
            f"torchvision has no weights {weights_name!r} of {name}: {', '.join(by_name)}"
        )
    weights = by_name[weights_name] if weights_name else known.DEFAULT
    arguments = (name, weights.name)
    with torch.device("meta"):
        network = build(*arguments)
    classifier, feature_dim = _find_classifier(network)
    preset = weights.transforms()
    is_video = name in videos
    view = _view_of_videos(preset, weights.meta) if is_video else _view_of_images(preset, name)
    owner = VIDEOS if is_video else IMAGES
    return Backbone(
        constructor=f"{HERE}:build",
        arguments=arguments,
        classifier=classifier,
        feature_dim=feature_dim,
        weights={weights.name: weights.url},
        view=view,
        mean=pixels(channels(preset.mean)),
        std=pixels(channels(preset.std)),
        classes=f"{owner.__name__}:{known.__name__}.{weights.name}",
    )


def build(name: str, weights_name: str) -> nn.Module:
    """Return a network of torchvision, untrained, as these weights need it."""
    weights = torchvision.models.get_model_weights(name)[weights_name]
    options: dict[str, Any] = {"num_classes": len(weights.meta["categories"])}
    # Weights for larger images have other positions. torchvision takes their size from them.
    if name.startswith("vit_"):
        options["image_size"] = weights.meta["min_size"][0]
    if name in ("googlenet", "inception_v3"):
        # Their weights hold the classifiers that only training uses.
        options |= {"aux_logits": True, "init_weights": False, "transform_input": True}
    return torchvision.models.get_model(name, weights=None, **options)


def _find_classifier(network: nn.Module) -> tuple[str, int]:
    """Return the name of the last layer that has weights, and how many numbers go into it."""
    for name, module in reversed(list(network.named_modules())):
        if isinstance(module, nn.Linear):
            return name, module.in_features
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            return name, module.in_channels
    raise UserError(f"{type(network).__name__}: has no layer that could be a classifier")


def _view_of_images(preset: Any, name: str) -> View:
    (resize_size,) = preset.resize_size
    view = view_of_resize(resize_size, preset.interpolation.value, name=name)
    return View(frame_rate=1, crop_size=square(preset.crop_size, name=name), **view)


def _view_of_videos(preset: Any, meta: dict[str, Any]) -> View:
    sides = preset.resize_size
    view = view_of_resize(
        sides[0] if len(sides) == 1 else sides, preset.interpolation.value, name="a video"
    )
    evaluated = dict(DOCUMENTED.findall(meta["_docs"]))
    length = int(evaluated["clip_len"])
    rate = float(evaluated["frame_rate"])
    return View(
        frame_rate=int(rate) if rate.is_integer() else rate,
        crop_size=square(preset.crop_size, name="a video"),
        num_frames_per_clip=length,
        last_clip="shift",
        antialias=False,  # torchvision's preset for videos does without
        **view,
    )

"""timm's networks on images: `resnet50.a1_in1k`, `vit_small_patch14_dinov2`."""

from __future__ import annotations

import logging
from typing import Any

import timm
import torch
from torch import nn

from videofeatures.decoding.view import View
from videofeatures.errors import UserError
from videofeatures.networks import hub
from videofeatures.networks.backbones import Backbone
from videofeatures.networks.backbones.families import did_you_mean
from videofeatures.networks.backbones.transforms import read_steps

HERE = "videofeatures.networks.backbones.from_timm"
FILES = ("model.safetensors", "pytorch_model.bin")
"""What timm keeps on the hub; the second is read without what it could run."""


def describe(name: str) -> Backbone:
    """Return timm's network NAME, or NAME.TAG for others than its default weights.

    Raises:
        UserError: there is no such network.
    """
    if not timm.is_model(name):
        hint = did_you_mean(name, timm.list_models())
        raise UserError(f"timm has no network {name!r}{hint}. timm.list_models() lists them")
    network_name, _, tag = name.partition(".")
    known = timm.list_pretrained(f"{network_name}.*")
    if tag and name not in known:
        raise UserError(f"timm has no weights {tag!r} of {network_name}: {', '.join(known)}")
    with torch.device("meta"):
        network = build(name)
    network.eval()
    config: Any = network.pretrained_cfg
    data = timm.data.resolve_model_data_config(network)
    transform = timm.data.create_transform(**data, is_training=False)
    steps = read_steps(transform.transforms, name=f"timm:{name}")
    poolings, num_tokens = _find_poolings(network, data["input_size"])
    classes = ""
    if timm.data.infer_imagenet_subset(network) == "imagenet-1k":
        classes = "torchvision.models:ResNet50_Weights.IMAGENET1K_V1"  # in the same order
    return Backbone(
        constructor=f"{HERE}:build",
        arguments=(name,),
        classifier=config["classifier"] if classes else "",
        extractor=f"{HERE}:extract",
        converter=f"{HERE}:convert",
        feature_dim=next(iter(poolings.values())),
        poolings=poolings,
        num_tokens=num_tokens,
        weights=_find_weights(config),
        view=View(frame_rate=1, **steps.view),
        mean=steps.mean,
        std=steps.std,
        classes=classes,
        weights_hint="" if config.get("hf_hub_id") else "timm knows of no weights of it",
    )


def build(name: str) -> nn.Module:
    """Return a network of timm, untrained."""
    logging.getLogger("timm").setLevel(logging.ERROR)
    return timm.create_model(name, pretrained=False)


def convert(_: dict[str, torch.Tensor], path: str, name: str) -> nn.Module:
    """Return a network of timm with the weights of a file, in whatever form timm takes."""
    return timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"file": path})


def extract(network: nn.Module, pooling: str) -> nn.Module:
    """Return a network that gives features; `pooled` is what timm's classifier is given."""
    return _Features(network, pooling)


class _Features(nn.Module):
    """The features of a network of timm."""

    def __init__(self, network: nn.Module, pooling: str):
        super().__init__()
        self.network = network
        self._pooling = pooling
        self._num_prefix_tokens: int = getattr(network, "num_prefix_tokens", 0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.network.forward_features(x)  # type: ignore[operator]
        if self._pooling == "pooled":
            return self.network.forward_head(features, pre_logits=True)  # type: ignore[operator]
        if self._pooling == "class_token":
            return features[:, 0]
        tokens = features[:, self._num_prefix_tokens :]
        return tokens if self._pooling == "tokens" else tokens.mean(dim=1)


def _find_poolings(
    network: nn.Module, input_size: tuple[int, int, int]
) -> tuple[dict[str, int], int]:
    """Return what can be made of a network's output, each with its length, and how many tokens
    there are, by trying it out."""
    images = torch.empty(1, *input_size, device="meta")
    with torch.inference_mode():
        tokens = network.forward_features(images)  # type: ignore[operator]
        poolings = {"pooled": int(_Features(network, "pooled")(images).shape[-1])}
    if not (isinstance(tokens, torch.Tensor) and tokens.ndim == 3):
        return poolings, 0
    dim = int(tokens.shape[-1])
    if getattr(network, "cls_token", None) is not None:
        poolings["class_token"] = dim
    num_tokens = int(tokens.shape[1]) - getattr(network, "num_prefix_tokens", 0)
    return poolings | {"mean": dim, "tokens": dim}, num_tokens


def _find_weights(config: dict[str, Any]) -> dict[str, str]:
    tag = config.get("tag") or "default"
    repository = config.get("hf_hub_id")
    if not repository:
        return {tag: config["url"]} if config.get("url") else {}
    name = config.get("hf_hub_filename")
    return {tag: hub.find_origin(repository, [name] if name else FILES)}

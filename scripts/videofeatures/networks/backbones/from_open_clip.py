"""open_clip's image towers: `ViT-B-32/openai`, `ViT-B-16-SigLIP2/webli`, `MobileCLIP-S1`.

Where weights were trained with QuickGELU, the network has it, whatever the model's own name says:
`ViT-B-32/openai` is `ViT-B-32-quickgelu/openai`, of which the library only warns.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME
from open_clip.convert import convert_state_dict
from open_clip.factory import load_state_dict
from open_clip.model import resize_pos_embed
from open_clip.timm_model import TimmModel
from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict
from open_clip.transformer import VisionTransformer
from torch import nn

from videofeatures.decoding.view import View
from videofeatures.errors import UserError
from videofeatures.networks import hub
from videofeatures.networks.backbones import Backbone
from videofeatures.networks.backbones.families import did_you_mean
from videofeatures.networks.backbones.transforms import read_steps

HERE = "videofeatures.networks.backbones.from_open_clip"

NO_TEXT = {"context_length": 1, "vocab_size": 1, "width": 64, "heads": 1, "layers": 1}
"""A text tower that is thrown away: the library builds no image tower without one."""


def describe(name: str) -> Backbone:
    """Return the image tower of open_clip's model MODEL with its weights MODEL/PRETRAINED.

    Without a name of weights, they are the first that the library lists.

    Raises:
        UserError: there is no such model, or no such weights of it; or the library feeds it as a
            view cannot.
    """
    model, tag = _find(name)
    with torch.device("meta"):
        tower = _build(model, tag).eval()
    config = merge_preprocess_dict(PreprocessCfg(), _settings(model, tag))
    config["size"] = tower.image_size
    preset = image_transform_v2(PreprocessCfg(**config), is_train=False)
    steps = read_steps(preset.transforms, name=f"open_clip:{name}")
    poolings, num_tokens = _find_poolings(tower)
    return Backbone(
        constructor=f"{HERE}:build",
        arguments=(model, tag),
        extractor=f"{HERE}:extract",
        converter=f"{HERE}:convert",
        feature_dim=next(iter(poolings.values())),
        poolings=poolings,
        num_tokens=num_tokens,
        weights=_find_weights(model, tag),
        view=View(frame_rate=1, **steps.view),
        mean=steps.mean,
        std=steps.std,
        weights_hint="" if tag else "open_clip knows of no weights of it",
    )


def build(model: str, tag: str) -> nn.Module:
    """Return the image tower of a model, untrained, as these weights need it."""
    # Also where the default device is another: some buffers are computed here, and in no file.
    with torch.device("cpu"):
        return _build(model, tag)


def convert(_: dict[str, torch.Tensor], path: str, model: str, tag: str) -> nn.Module:
    """Return the image tower of a model with the weights of a file, in whatever form open_clip
    takes: of both towers, or of MobileCLIP's own program.

    Raises:
        RuntimeError: weights are missing, or are of no layer of the tower.
    """
    with torch.device("cpu"):
        whole = _build_whole(model, tag)
    state = convert_state_dict(whole, load_state_dict(path, weights_only=True))
    resize_pos_embed(state, whole)
    tower: nn.Module = whole.visual
    own = {
        name.removeprefix("visual."): tensor
        for name, tensor in state.items()
        if name.startswith("visual.")
    }
    tower.load_state_dict(own, strict=True)
    return tower


def extract(network: nn.Module, pooling: str) -> nn.Module:
    """Return a network that gives features; `projected` is what the library compares with texts."""
    return _Features(network, pooling)


class _Features(nn.Module):
    """The features of an image tower."""

    def __init__(self, tower: nn.Module, pooling: str):
        super().__init__()
        self.tower = tower
        self._pooling = pooling
        if isinstance(tower, VisionTransformer) and pooling != "projected":
            tower.proj = None
        if isinstance(tower, VisionTransformer):
            tower.output_tokens = pooling in ("mean", "tokens")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self._pooling == "projected":
            return self.tower(x)
        if isinstance(self.tower, TimmModel):
            trunk: Any = self.tower.trunk
            features = trunk.forward_features(x)
            if self._pooling == "pooled":
                return trunk.forward_head(features, pre_logits=True)
            tokens = features[:, trunk.num_prefix_tokens :]
        elif self._pooling == "pooled":
            return self.tower(x)
        else:
            _, tokens = self.tower(x)
        return tokens if self._pooling == "tokens" else tokens.mean(dim=1)


def _find(name: str) -> tuple[str, str]:
    """Return the names of a model and of its weights, "" if the library has none."""
    model, slash, tag = name.partition("/")
    models = open_clip.list_models()
    if model not in models:
        hint = did_you_mean(model, models)
        raise UserError(
            f"open_clip has no model {model!r}{hint}. open_clip.list_models() lists them"
        )
    tags = open_clip.list_pretrained_tags_by_model(model)
    if not slash:
        return model, tags[0] if tags else ""
    if tag not in tags:
        raise UserError(
            f"open_clip has no weights {tag!r} of {model}: {', '.join(tags) or 'it knows of none'}"
        )
    return model, tag


def _settings(model: str, tag: str) -> dict[str, Any]:
    """Return what the library says of a model's weights."""
    return open_clip.get_pretrained_cfg(model, tag) if tag else {}


def _build(model: str, tag: str) -> nn.Module:
    tower: nn.Module = _build_whole(model, tag).visual
    return tower


def _build_whole(model: str, tag: str) -> open_clip.CLIP:
    config = open_clip.get_model_config(model)
    return open_clip.CLIP(
        config["embed_dim"],
        config["vision_cfg"],
        NO_TEXT,
        quick_gelu=_settings(model, tag).get("quick_gelu", config.get("quick_gelu", False)),
    )


def _find_poolings(tower: nn.Module) -> tuple[dict[str, int], int]:
    """Return what can be made of a tower's output, each with its length, and how many tokens there
    are, by trying it out."""
    size: Any = tower.image_size
    height, width = (size, size) if isinstance(size, int) else size
    images = torch.empty(1, 3, height, width, device="meta")
    poolings, num_tokens = {}, 0
    for pooling in _names_of_poolings(tower, images):
        with torch.inference_mode():
            features = _Features(tower, pooling)(images)
        poolings[pooling] = int(features.shape[-1])
        if pooling == "tokens":
            num_tokens = int(features.shape[1])
    return poolings, num_tokens


def _names_of_poolings(tower: nn.Module, images: torch.Tensor) -> tuple[str, ...]:
    if isinstance(tower, TimmModel):
        trunk: Any = tower.trunk
        with torch.inference_mode():
            features = trunk.forward_features(images)
        has_tokens = isinstance(features, torch.Tensor) and features.ndim == 3
        return ("projected", "pooled", *(("mean", "tokens") if has_tokens else ()))
    if not isinstance(tower, VisionTransformer):
        return ("projected",)
    # CoCa pools by attention: what it calls tokens are answers to questions of its own.
    has_tokens = tower.attn_pool is None
    return ("projected", "pooled", *(("mean", "tokens") if has_tokens else ()))


def _find_weights(model: str, tag: str) -> dict[str, str]:
    """Return where weights are: in the files of a repository that the library itself tries."""
    settings = _settings(model, tag)
    if not settings.get("hf_hub"):
        return {tag: settings["url"]} if settings.get("url") else {}
    repository, _, name = settings["hf_hub"].rpartition("/")
    if not name:
        return {tag: hub.find_origin(repository, [HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME])}
    safe_name = str(Path(name).with_suffix(".safetensors"))
    return {tag: hub.find_origin(repository, [safe_name, name])}

"""What is made of a video: a backbone, its weights and its view, and how features are stored."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from videofeatures.decoding.view import View
from videofeatures.errors import UserError
from videofeatures.networks.backbones import Backbone, find_backbone
from videofeatures.networks.weights import identity_of
from videofeatures.settings import Settings, config_problems

NUMERICS_VERSION = 1
"""Raised whenever a change of this program changes the features it makes."""

VIEW_KEYS = ("frame_rate", "resize_size", "crop_size", "interpolation")
"""Settings that are the backbone's own where they are not given."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that decides the numbers of a feature file, except its video.

    Attributes:
        backbone_name: as `find_backbone` knows it.
        view: the backbone's, with what the configuration says on top.
        weights_path: of the verified file, which may have yet to be made.
        hwaccel: device that ffmpeg decodes on.
        precision: as it was asked for, `auto` too: a login node and a GPU node must agree on
            which rows are pending.
        l2_normalize: whether each feature is divided by its norm.
        half_precision: whether features are stored as float16, else as float32.
    """

    backbone_name: str
    view: View
    weights_path: str
    hwaccel: str
    precision: str
    l2_normalize: bool
    half_precision: bool

    @classmethod
    def from_settings(cls, settings: Settings, weights_path: str) -> Recipe:
        """Return the recipe of settings in which `recipe_problems` finds nothing."""
        return cls(
            backbone_name=settings.backbone,
            view=_view(settings),
            weights_path=weights_path,
            hwaccel=settings.hwaccel,
            precision=settings.precision,
            l2_normalize=settings.l2_normalize,
            half_precision=settings.half_precision,
        )

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Recipe:
        """Return the recipe of which `dataclasses.asdict` made `content`."""
        return cls(**content | {"view": View(**content["view"])})

    @property
    def backbone(self) -> Backbone:
        """The network, and what goes with it."""
        return find_backbone(self.backbone_name)

    @cached_property
    def weights_id(self) -> str | None:
        """Identity of the weights; None while it is not known."""
        return identity_of(self.weights_path)

    @property
    def bytes_per_number(self) -> int:
        """Bytes of each number of a stored feature."""
        return 2 if self.half_precision else 4

    @cached_property
    def numerics(self) -> dict[str, Any]:
        """All that decides the numbers, except the weights, by the names of the settings."""
        backbone = self.backbone
        return {
            "backbone": self.backbone_name,
            **asdict(self.view),
            "hwaccel": self.hwaccel,
            "precision": self.precision,
            "l2_normalize": self.l2_normalize,
            "half_precision": self.half_precision,
            "mean": backbone.mean,
            "std": backbone.std,
            "numerics_version": NUMERICS_VERSION,
        }

    @cached_property
    def digest(self) -> str:
        """Short hash of `numerics`, kept in every record."""
        text = json.dumps(self.numerics, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def recipe_problems(config: Mapping[str, Any]) -> list[str]:
    """Return what keeps a configuration from being a recipe, one sentence each.

    Args:
        config: its values may be anything; what `config_problems` reports is not repeated.
    """
    name = config.get("backbone")
    if isinstance(name, str) and name:
        try:
            find_backbone(name)
        except UserError as error:
            return [f"configuration: backbone: {error}"]
    if config_problems(config):
        return []
    view = _view(Settings.from_config(config))
    if view.crop_size > view.resize_size:
        return [
            f"configuration: crop_size: {view.crop_size} is larger than the short side of a frame, "
            f"resize_size {view.resize_size}"
        ]
    return []


def _view(settings: Settings) -> View:
    values = {key: getattr(settings, key) for key in VIEW_KEYS}
    return replace(
        find_backbone(settings.backbone).view,
        square_pixels=settings.square_pixels,
        **{key: value for key, value in values.items() if value is not None},
    )

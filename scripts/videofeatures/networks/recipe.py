"""What is made of a video: a backbone, its weights and its view, and how features are stored."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from videofeatures.decoding.view import View
from videofeatures.errors import UserError
from videofeatures.networks.backbones import Backbone, find_backbone
from videofeatures.networks.backbones.families import safe_name
from videofeatures.networks.weights import identity_of
from videofeatures.settings import Settings, config_problems

NUMERICS_VERSION = 1
"""Raised whenever a change of this program changes the features it makes."""

VIEW_KEYS = (
    "frame_rate",
    "num_frames",
    "num_frames_per_clip",
    "clip_stride",
    "frame_interval",
    "last_clip",
    "resize_size",
    "crop_size",
    "interpolation",
    "resizer",
    "resize_mode",
)
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
        pooling: what of the network's output a feature is; "" where there is no choice.
        pool: what becomes of all features of a video: `none`, `mean` or `max`.
        l2_normalize: whether each feature is divided by its norm.
        half_precision: whether features are stored as float16, else as float32.
        name: by which a configuration tells its recipes apart; decides no number.
    """

    backbone_name: str
    view: View
    weights_path: str
    hwaccel: str
    precision: str
    l2_normalize: bool
    half_precision: bool
    pooling: str = ""
    pool: str = "none"
    name: str = ""

    @classmethod
    def from_settings(cls, settings: Settings, weights_path: str, name: str = "") -> Recipe:
        """Return the recipe of settings in which `recipe_problems` finds nothing."""
        return cls(
            backbone_name=settings.backbone,
            view=_view(settings),
            weights_path=weights_path,
            hwaccel=settings.hwaccel,
            precision=settings.precision,
            l2_normalize=settings.l2_normalize,
            half_precision=settings.half_precision,
            pooling=_pooling(settings),
            pool=settings.pool,
            name=name or safe_name(settings.backbone),
        )

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Recipe:
        """Return the recipe of which `dataclasses.asdict` made `content`."""
        return cls(**content | {"view": View(**content["view"])})

    @property
    def backbone(self) -> Backbone:
        """The network, and what goes with it."""
        return find_backbone(self.backbone_name)

    @property
    def feature_dim(self) -> int:
        """Length of one feature."""
        backbone = self.backbone
        return backbone.poolings.get(self.pooling, backbone.feature_dim)

    @property
    def num_tokens(self) -> int:
        """Features of each row: several where it has tokens, as many as at the network's own frame
        size."""
        return self.backbone.num_tokens if self.pooling == "tokens" else 1

    @property
    def num_dims(self) -> int:
        """Dimensions of a feature file's array: one more where a row has several tokens."""
        return 3 if self.pooling == "tokens" else 2

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
            **self.view.numerics,
            "hwaccel": self.hwaccel,
            "precision": self.precision,
            "l2_normalize": self.l2_normalize,
            "half_precision": self.half_precision,
            "mean": backbone.mean,
            "std": backbone.std,
            "numerics_version": NUMERICS_VERSION,
            # Unless they are as they were before there was a choice.
            **({"pooling": self.pooling} if self.pooling else {}),
            **({"pool": self.pool} if self.pool != "none" else {}),
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
            return [f"configuration: backbone: {problem}" for problem in error.problems]
    if config_problems(config):
        return []
    settings = Settings.from_config(config)
    backbone, view = find_backbone(settings.backbone), _view(settings)
    poolings, short_side = list(backbone.poolings) or ["pooled"], view.resize_size
    if view.resize_width is not None:
        short_side = min(short_side, view.resize_width)
    is_single, span = backbone.view.num_frames_per_clip is None, view.windows.span
    has_rate = settings.frame_rate not in (None, "native")
    is_spread, is_few = view.num_frames is not None, (view.num_frames or span) < span
    problems = [
        (
            settings.pooling not in (None, *poolings),
            f"pooling: {settings.backbone} has no {settings.pooling!r}, but {', '.join(poolings)}",
        ),
        (
            view.crop_size > short_side,
            f"crop_size: {view.crop_size} is larger than the short side of a frame, resize_size "
            f"{short_side}",
        ),
        (
            view.keyframes_only and is_spread,
            "keyframes_only: takes every key frame, and num_frames so many frames: choose one",
        ),
        (
            has_rate and view.constant_rate is None,
            f"frame_rate: {settings.frame_rate} says nothing where num_frames or keyframes_only "
            "take the video's own frames: leave it out",
        ),
        (
            is_single and settings.clip_stride is not None,
            "clip_stride: the network sees single frames, not clips: frame_interval is for these",
        ),
        *(
            (
                is_single and getattr(settings, key) is not None,
                f"{key}: the network sees single frames, not clips: leave it out",
            )
            for key in ("num_frames_per_clip", "last_clip")
        ),
        (
            is_single and is_spread and view.frame_interval > 1,
            "frame_interval: num_frames says how many frames are taken: leave one of them out",
        ),
        (
            is_few and view.last_clip == "drop",
            f"num_frames: {view.num_frames} are fewer than a clip spans, {span}, and last_clip is "
            "drop: no video would have a feature",
        ),
    ]
    return [f"configuration: {problem}" for is_so, problem in problems if is_so]


def _pooling(settings: Settings) -> str:
    poolings = find_backbone(settings.backbone).poolings
    return (settings.pooling or next(iter(poolings))) if poolings else ""


def _view(settings: Settings) -> View:
    values = {key: getattr(settings, key) for key in VIEW_KEYS}
    view = replace(
        find_backbone(settings.backbone).view,
        square_pixels=settings.square_pixels,
        keyframes_only=settings.keyframes_only,
        **{key: value for key, value in values.items() if value is not None},
    )
    # Said or not, it is the same.
    if view.clip_stride == view.num_frames_per_clip and view.frame_interval == 1:
        view = replace(view, clip_stride=None)
    if settings.resize_size is not None:
        view = replace(view, resize_width=None)
    return view

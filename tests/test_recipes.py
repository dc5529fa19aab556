"""Each recipe gives as many rows as its convention has, and its network can be had."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conftest import ROOT
from videofeatures.command_line import read_config_file
from videofeatures.decoding.view import View
from videofeatures.networks.backbones import BACKBONES, Backbone, families, from_torchvision
from videofeatures.networks.recipe import Recipe
from videofeatures.planning.plan import check_config
from videofeatures.settings import defaults

FOLDER = ROOT / "config" / "recipes"
PATHS = sorted(FOLDER.glob("*.yaml"))

LENGTHS = [16, 17, 23, 24, 25, 31, 32, 33, 39, 47, 48, 49, 64, 100, 1000, 1001]
"""Frames of a video."""


def windows(length: int, stride: int, num_frames: int) -> int:
    """OpenTAD's and Ego4D's: all that fit, one stride apart."""
    return len(range(0, num_frames - length + 1, stride))


def with_the_rest(length: int, stride: int, num_frames: int) -> int:
    """Those, and one that ends with the video, where they do not."""
    num_windows = windows(length, stride, num_frames)
    is_left = num_frames > (num_windows - 1) * stride + length if num_windows else True
    return num_windows + is_left


def seconds(rate: float) -> Callable[[float], int]:
    return lambda duration_seconds: max(1, math.floor(duration_seconds * rate + 0.5))


ROWS: dict[str, Callable[[int], int]] = {
    "howto100m-3d": lambda n: math.ceil(n / 16),
    "thumos14-videomae": lambda n: len(range(0, n - 15, 4)),
    "activitynet-clip16s8": lambda n: with_the_rest(16, 8, n),
    "ego4d-slowfast-windows": lambda n: with_the_rest(32, 16, n),
}
"""Rows by the number of frames at the recipe's rate."""

ROWS_BY_SECONDS: dict[str, Callable[[float], int]] = {
    "howto100m-2d": seconds(1),
    "msrvtt-clip-1fps": seconds(1),
    "qvhighlights-clip": seconds(0.5),
    "video-llm-32-frames": lambda _: 32,
}
"""Rows by the length of the video."""


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """Networks whose descriptions are on the hub, which tests do not reach, stand in."""
    monkeypatch.chdir(tmp_path)

    def find(family: str, name: str) -> Backbone:
        if family == "torchvision":
            return from_torchvision.describe(name)
        length = 16 if "videomae" in name else None
        view = View(
            frame_rate="native" if length else 1,
            resize_size=224,
            crop_size=224,
            num_frames_per_clip=length,
        )
        own = BACKBONES["efficientnet_lite0"]
        return replace(own, view=view, poolings={"mean": 8, "tokens": 8})

    monkeypatch.setattr(families, "find", find)


def recipe_of(path: Path) -> Recipe:
    (config,) = check_config(defaults() | read_config_file(path)).values()
    return Recipe.from_settings(config, "x-random.pth")


def test_every_recipe_has_its_formula_and_is_listed():
    names = {path.stem for path in PATHS}
    assert names == {*ROWS, *ROWS_BY_SECONDS}
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert all(f"({name}.yaml)" in page for name in names)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_recipe_says_its_source_its_rows_and_what_is_not_the_same(path):
    text = path.read_text(encoding="utf-8")
    comments = [line for line in text.splitlines() if line.startswith("#")]
    for start in ("# Source: ", "# Rows: ", "# Not the same: "):
        assert any(line.startswith(start) for line in comments), start


@pytest.mark.parametrize("name", ROWS)
def test_a_video_gives_as_many_rows_as_the_convention_has(name):
    view = recipe_of(FOLDER / f"{name}.yaml").view
    assert view.frame_step == 1
    for num_frames in LENGTHS:
        if num_frames >= (view.num_frames_per_clip or 1):
            assert len(view.windows.starts(num_frames)) == ROWS[name](num_frames), num_frames


@pytest.mark.parametrize("name", ROWS_BY_SECONDS)
def test_a_video_gives_as_many_rows_as_its_length_says(name):
    view = recipe_of(FOLDER / f"{name}.yaml").view
    for duration_seconds in np.arange(0.3, 200, 1.7):
        assert view.num_rows(duration_seconds) == ROWS_BY_SECONDS[name](duration_seconds)


def test_windows_are_those_of_ego4d_s_documentation():
    windows = recipe_of(FOLDER / "ego4d-slowfast-windows.yaml").view.windows
    assert [(start, start + windows.span - 1) for start in windows.starts(39)] == [(0, 31), (7, 38)]

"""A recipe decides the numbers: its digest follows what changes them, and nothing else."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest

from conftest import make_recipe
from videofeatures.networks.backbones import BACKBONES
from videofeatures.networks.recipe import Recipe, recipe_problems
from videofeatures.settings import Config, Settings

OTHER_VALUES = {
    "backbone": "resnext101",
    "frame_rate": 2.0,
    "resize_size": 256,
    "crop_size": 200,
    "interpolation": "bicubic",
    "square_pixels": False,
    "hwaccel": "auto",
    "precision": "float32",
    "l2_normalize": False,
    "half_precision": False,
}
"""Of the settings that change the numbers."""

# Of finished collections: with other digests, all of them would be made again.
DIGESTS = {
    "cfefe53c07e19bce": {},
    "9996067ff85d6604": {"backbone": "resnext101"},
    "694c7ae0fc559bf5": {"backbone": "efficientnet_lite0", "crop_size": 0},
    "9bcaf943b5da3232": {
        "backbone": "efficientnet_lite0",
        "precision": "bfloat16",
        "crop_size": 0,
    },
    "70a11596d9872c76": {"frame_rate": 2, "resize_size": 256, "crop_size": 224},
    "4c22c179148b7cd1": {"frame_rate": 2.0, "resize_size": 256, "crop_size": 224},
    "d56d9d534298c0ca": {"frame_rate": 0.5, "interpolation": "bicubic", "square_pixels": False},
    "33aafa76c0139ff1": {
        "backbone": "resnext101",
        "precision": "float32",
        "l2_normalize": False,
        "half_precision": False,
        "hwaccel": "cuda",
    },
}


@pytest.mark.parametrize(("digest", "options"), DIGESTS.items())
def test_digests_are_those_of_collections_that_are_done(digest, options):
    assert make_recipe(Settings(**options)).digest == digest
    # What changes only the speed changes none.
    faster = {"batch_size": 3, "decoders": 2, "device": "cpu", "decode_timeout_seconds": 7.5}
    assert make_recipe(Settings(**options, **faster)).digest == digest
    assert make_recipe(Config(**options, videos_per_job=7).settings).digest == digest


@pytest.mark.parametrize("key", OTHER_VALUES)
def test_the_digest_follows_what_changes_the_numbers(key):
    changed = make_recipe(Settings(**{key: OTHER_VALUES[key]}))
    assert changed.digest != make_recipe().digest
    assert changed.numerics[key] == OTHER_VALUES[key]


def test_naming_the_backbone_s_own_value_changes_the_numbers_of_nothing():
    own = make_recipe(
        Settings(frame_rate=1, resize_size=224, crop_size=0, interpolation="bilinear")
    )
    assert own.numerics == make_recipe().numerics
    assert own.digest == make_recipe().digest


def test_a_recipe_comes_back_from_json_as_it_was():
    recipe = make_recipe(Settings(backbone="resnext101", crop_size=64))
    assert Recipe.from_json(json.loads(json.dumps(asdict(recipe)))) == recipe


def test_weights_have_an_identity_as_soon_as_somebody_knows_it():
    assert make_recipe(weights_path="resources/weights/resnet152-394f9c45.pth").weights_id == (
        "394f9c45"
    )
    assert make_recipe(weights_path="resources/weights/resnet152-missing.pth").weights_id is None


def test_what_is_no_recipe_is_named():
    assert recipe_problems({}) == []
    (problem,) = recipe_problems({"backbone": "vgg", "frame_rate": "what"})
    assert problem.startswith("configuration: backbone: 'vgg' is not one of")
    assert "resnext101" in problem
    (problem,) = recipe_problems({"crop_size": 300})
    assert "crop_size: 300 is larger than" in problem


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"keyframes_only": True, "num_frames": 8}, "keyframes_only: takes every key frame"),
        ({"keyframes_only": True, "frame_rate": 2}, "frame_rate: 2 says nothing"),
        ({"num_frames": 8, "frame_rate": 0.5}, "frame_rate: 0.5 says nothing"),
        ({"clip_stride": 8}, "clip_stride: the network sees single frames"),
        ({"num_frames": 8, "frame_interval": 2}, "frame_interval: num_frames says how many"),
        (
            {"backbone": "resnext101", "num_frames": 8, "last_clip": "drop"},
            "num_frames: 8 are fewer than a clip spans, 16",
        ),
        ({"crop_size": 250, "resize_mode": "squash"}, "crop_size: 250 is larger than"),
    ],
)
def test_keys_that_contradict_each_other_are_named(config, expected):
    (problem,) = recipe_problems(config)
    assert problem.startswith(f"configuration: {expected}")


@pytest.mark.parametrize(
    "config",
    [
        {"keyframes_only": True, "frame_rate": "native", "frame_interval": 2},
        {"num_frames": 8},
        {"backbone": "resnext101", "num_frames": 8},
        {"backbone": "resnext101", "num_frames": 16, "last_clip": "drop"},
        {"backbone": "resnext101", "last_clip": "drop", "clip_stride": 8, "frame_interval": 2},
    ],
)
def test_keys_that_go_together_are_no_problem(config):
    assert recipe_problems(config) == []


def test_interpolation_is_the_backbone_s_own_unless_it_is_named(monkeypatch):
    own = BACKBONES["resnet152"]
    mine = replace(own, view=replace(own.view, interpolation="area"))
    monkeypatch.setitem(BACKBONES, "mine", mine)
    assert make_recipe().numerics["interpolation"] == "bilinear"
    assert make_recipe(Settings(backbone="mine")).numerics["interpolation"] == "area"
    named = make_recipe(Settings(backbone="mine", interpolation="bilinear"))
    assert named.view.interpolation == "bilinear"

"""What a backbone wants to see."""

from __future__ import annotations

import pytest

from videofeatures.decoding.view import View
from videofeatures.networks.backbones import BACKBONES


def view(**options: object) -> View:
    return View(**{"frame_rate": 10, "resize_size": 32, "crop_size": 0} | options)


def test_how_many_features_a_second_of_video_gives():
    found = {name: backbone.view.num_rows(16) / 16 for name, backbone in BACKBONES.items()}
    assert (found["resnet152"], found["resnext101"]) == (1, 1.5)


CLIPS = {"num_frames_per_clip": 16}


@pytest.mark.parametrize(
    ("options", "seconds", "fps", "expected"),
    [
        ({"frame_rate": 1}, 2.5, None, 3),  # as the filter rounds
        ({"frame_rate": 1}, 0.1, None, 1),
        ({}, 3, 25, 30),
        ({"frame_interval": 4}, 3, None, 8),
        ({"frame_rate": "native"}, 3, 25, 75),
        ({"frame_rate": "native"}, 3, None, 90),
        ({"frame_rate": "native", "frame_interval": 30}, 3, None, 3),
        (CLIPS, 3, None, 2),
        (CLIPS | {"clip_stride": 8}, 3, None, 3),
        (CLIPS | {"clip_stride": 8, "last_clip": "drop"}, 3, None, 2),
        (CLIPS | {"last_clip": "drop"}, 1, None, 0),
        (CLIPS | {"frame_interval": 2}, 6.5, None, 3),
        ({"num_frames": 8}, 3, 25, 8),
        (CLIPS | {"num_frames": 32}, 3, 25, 2),
        ({"keyframes_only": True}, 9, 25, 5),
    ],
)
def test_how_many_rows_a_video_gives(options, seconds, fps, expected):
    assert view(**options).num_rows(seconds, fps) == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 10),
        ({"frame_rate": "native"}, None),
        ({"num_frames": 3}, None),
        ({"keyframes_only": True}, None),
    ],
)
def test_which_frames_have_times_of_their_own(options, expected):
    assert view(**options).constant_rate == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"frame_interval": 4}, 4),
        (CLIPS | {"frame_interval": 4}, 4),
        (CLIPS | {"frame_interval": 4, "clip_stride": 72}, 4),
        (CLIPS | {"frame_interval": 4, "clip_stride": 70}, 1),  # starts lie off the grid
        (CLIPS | {"frame_interval": 4, "clip_stride": 32}, 1),  # what is left lies off the grid
        (CLIPS | {"frame_interval": 4, "last_clip": "shift"}, 1),
        ({"frame_interval": 4, "num_frames": 20}, 1),
    ],
)
def test_frames_that_nothing_needs_become_no_pixels(options, expected):
    assert view(**options).frame_step == expected


def test_what_is_as_it_was_leaves_digests_as_they_were():
    assert set(view().numerics) == {
        "frame_rate",
        "resize_size",
        "crop_size",
        "interpolation",
        "square_pixels",
        "num_frames_per_clip",
    }
    assert view(last_clip="drop").numerics["last_clip"] == "drop"

"""How a job's videos share the CPU and a device."""

from __future__ import annotations

import pytest

from videofeatures.extraction.split import split_decoders
from videofeatures.settings import Settings


@pytest.mark.parametrize(
    ("settings", "has_device", "num_threads", "expected"),
    [
        # On the CPU: as many as cores, sixteen at most; or as it is set.
        ({}, False, 4, (4, 0)),
        ({}, False, 96, (16, 0)),
        ({"decoders": 3}, False, 96, (3, 0)),
        ({"hwaccel": "auto"}, False, 4, (4, 0)),
        ({"hwaccel": "auto", "device_decoders": 5}, False, 4, (4, 0)),
        # On a device alone.
        ({"hwaccel": "cuda"}, True, 4, (8, 8)),
        ({"hwaccel": "cuda"}, True, 96, (8, 8)),
        ({"hwaccel": "cuda", "decoders": 20}, True, 4, (20, 20)),
        # Side by side.
        ({"hwaccel": "auto"}, True, 4, (12, 8)),
        ({"hwaccel": "auto"}, True, 96, (24, 8)),
        ({"hwaccel": "auto", "decoders": 6}, True, 96, (6, 6)),
        ({"hwaccel": "auto", "decoders": 20}, True, 4, (20, 8)),
        ({"hwaccel": "auto", "device_decoders": 2}, True, 4, (6, 2)),
        ({"hwaccel": "cuda", "device_decoders": 2}, True, 4, (6, 2)),
        ({"hwaccel": "cuda", "device_decoders": 2, "decoders": 3}, True, 4, (3, 2)),
        # No more than are asked for.
        ({"hwaccel": "cuda", "device_decoders": 9, "decoders": 3}, True, 4, (3, 3)),
    ],
)
def test_videos_are_split_as_it_is_set_and_as_fits(settings, has_device, num_threads, expected):
    split = split_decoders(
        Settings(**settings), has_device=has_device, num_threads=num_threads, num_videos=1000
    )
    assert split == expected


@pytest.mark.parametrize(("num_videos", "expected"), [(1, (1, 1)), (9, (9, 8))])
def test_no_more_are_started_than_there_are_videos(num_videos, expected):
    settings = Settings(hwaccel="auto")
    split = split_decoders(settings, has_device=True, num_threads=4, num_videos=num_videos)
    assert split == expected

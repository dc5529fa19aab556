"""Decoding of a part begins at a key frame before it, if there is a good one: `test_parts` compares
what comes of it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from conftest import make_clip, run_ffmpeg
from videofeatures.decoding.libav import Libav
from videofeatures.decoding.process import ReadTimeout
from videofeatures.decoding.seeking import _nal_units, _recovers_at_once, find_landing
from videofeatures.errors import VideoError


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """30 s, with a key frame every 2 s."""
    path = tmp_path_factory.mktemp("seeking") / "a.mp4"
    codec = ("-c:v", "libx264", "-preset", "ultrafast", "-g", "50")
    return make_clip(path, seconds=30, size="64x48", codec=codec)


@pytest.mark.parametrize(
    ("start", "seconds", "key"),
    [
        (0.0, 0, None),
        (2.5, 0, None),  # its margin is in the first group
        (3.0, 2, 2),
        (3.3, 2.3, 2),
        (29.9, 28.9, 28),
        (500.0, 499, 28),
    ],
)
def test_it_begins_a_second_before_the_part_or_earlier(clip, start, seconds, key):
    landing = find_landing(str(clip), start)
    assert landing.tick == Fraction(1, 12800)
    assert landing.seconds == Fraction(str(seconds))
    if key is None:
        assert landing.key_ticks is None
    else:
        assert landing.seconds + landing.key_ticks * landing.tick == key


def test_a_worker_says_the_same(clip):
    with Libav(ReadTimeout(60)) as libav:
        assert libav.find_landing(str(clip), 12.345678) == find_landing(str(clip), 12.345678)


def test_a_key_frame_of_another_video_is_none_of_this(clip, tmp_path):
    path = tmp_path / "two.mp4"
    both = ("-map", "0", "-map", "1", "-c:v", "libx264", "-g", "25")
    run_ffmpeg("-i", clip, "-f", "lavfi", "-i", "testsrc2=s=64x48:d=30", *both, path)
    assert not find_landing(str(path), 20.0).seconds


def test_no_video_is_said(tmp_path):
    run_ffmpeg("-f", "lavfi", "-i", "sine=d=1", tmp_path / "a.wav")
    with pytest.raises(VideoError, match="no video stream"):
        find_landing(str(tmp_path / "a.wav"), 0.5)


@pytest.mark.parametrize(
    ("payload", "is_at_once"),
    [
        (b"\x06\x01\xc4\x80", True),
        (b"\x06\x01\x24\x80", False),  # periodic intra refresh
        (b"\x00\x04\x00\x00\x03\x00\x00\x06\x01\xc4\x80", True),  # behind another, with 3 put in
        (b"\x05" + b"\xff\x01" + bytes(range(4, 256)) + b"xxxx" + b"\x06\x01\xc4\x80", True),
        (b"\x05\xff\x01\xc4", False),
        (b"\x06\x01", False),
        (b"\xff\xff", False),
        (b"", False),
    ],
)
def test_a_recovery_point_may_take_some_frames(payload, is_at_once):
    assert _recovers_at_once(payload) == is_at_once


def test_units_are_apart_by_lengths_or_by_start_codes():
    assert list(_nal_units(b"\0\0\0\2ab\0\0\0\0\0\0\0\1c", 4)) == [b"ab", b"c"]
    assert list(_nal_units(b"\0\0\0\1ab\0\0\1c", 0)) == [b"ab\0"[:2], b"c"]
    assert list(_nal_units(b"\0\0\0\x09ab", 4)) == [b"ab"]  # cut off

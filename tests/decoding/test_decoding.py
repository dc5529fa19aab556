"""One decoding for several views: each is given what it is given by itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conftest import make_clip, run_ffmpeg
from decoding.drawn_videos import make_corners
from decoding.hostile_videos import make_still
from videofeatures.decoding import ffmpeg_decoder, frames
from videofeatures.decoding.decoding import Decoding, ViewDecoding
from videofeatures.decoding.ffmpeg_decoder import FfmpegDecoder
from videofeatures.decoding.view import View
from videofeatures.errors import VideoError
from videofeatures.settings import Settings
from videofeatures.source import Source

VIEWS = {
    "2d": View(frame_rate=1, resize_size=112, crop_size=0),
    "3d": View(frame_rate=24, resize_size=56, crop_size=56, num_frames_per_clip=16),
    "steps": View(frame_rate=5, resize_size=64, crop_size=0, frame_interval=3),
    "pillow": View(frame_rate=2, resize_size=48, crop_size=48, resizer="pillow"),
    "pillow, smaller": View(frame_rate=2, resize_size=32, crop_size=32, resizer="pillow"),
    "own": View(frame_rate="native", resize_size=64, crop_size=0),
    "some of its own": View(frame_rate="native", resize_size=48, crop_size=0, frame_interval=4),
    "spread": View(frame_rate=1, resize_size=64, crop_size=0, num_frames=7),
    "key frames": View(frame_rate=1, resize_size=64, crop_size=0, keyframes_only=True),
}


@pytest.fixture
def runs(monkeypatch) -> list[int]:
    """How many outputs each run of ffmpeg that decodes has."""
    counts: list[int] = []

    def read_frames(outputs, *arguments, read=frames.read_frames, **options):
        counts.append(len(outputs))
        return read(outputs, *arguments, **options)

    monkeypatch.setattr(frames, "read_frames", read_frames)
    return counts


def decode(source: Source, *views: View, **options) -> tuple[Decoding, list[list[np.ndarray]]]:
    with FfmpegDecoder(Settings()) as decoder:
        decoding = Decoding(decoder, source, *views, **options)
        clips: list[list[np.ndarray]] = [[] for _ in views]
        for number, pixels in decoding.clips_of_views():
            clips[number].append(pixels)
            assert decoding.views[number].num_clips == len(clips[number])
    return decoding, clips


def decode_alone(source: Source, view: View, **options) -> tuple[ViewDecoding, list[np.ndarray]]:
    with FfmpegDecoder(Settings()) as decoder:
        decoding = Decoding(decoder, source, view, **options)
        clips, (alone,) = [], decoding.views
        try:
            clips += decoding.clips()
        except VideoError as error:
            alone.error = error
    return alone, clips


def assert_as_alone(source: Source, *names: str, **options) -> None:
    together, clips = decode(source, *map(VIEWS.get, names), **options)
    for name, view, pixels in zip(names, together.views, clips, strict=True):
        alone, expected = decode_alone(source, VIEWS[name], **options)
        assert str(view.error) == str(alone.error), name
        assert view.warning == alone.warning, name
        assert len(pixels) == len(expected), name
        assert all(map(np.array_equal, pixels, expected)), name
        if alone.error is None:
            assert all(map(np.array_equal, view.times, alone.times)), name
            damages = [view.told.damage, alone.told.damage]
            assert damages[0].num_damaged_frames == damages[1].num_damaged_frames
            # It matters as what the damaged ones are a share of: of an undamaged source, some are
            # left out; and behind the end of a part, as many are decoded as were read.
            if damages[0].num_damaged_frames and not source.is_part:
                assert damages[0].num_frames == damages[1].num_frames
        assert (view.num_frames, view.num_clips) == (alone.num_frames, alone.num_clips), name


def make_rotated(path: Path) -> None:
    plain = make_corners(path.with_name("plain.mp4"), "-c:v", "libx264")
    run_ffmpeg("-display_rotation", 90, "-i", plain, "-c", "copy", path)


VIDEOS = {
    "plain.mp4": lambda path: make_clip(path, seconds=7),
    "variable.mkv": lambda path: run_ffmpeg(
        *("-f", "lavfi", "-i", "testsrc2=s=128x72:r=25:d=6,select='not(mod(sqrt(n),1))'"),
        *("-fps_mode", "vfr", "-c:v", "libx264", path),
    ),
    "rotated.mp4": make_rotated,
    "still.mkv": lambda path: make_still(path, 9),
    "one_frame.mkv": lambda path: run_ffmpeg(
        "-f", "lavfi", "-i", "testsrc2=s=128x72:r=25:d=0.04", "-c:v", "ffv1", path
    ),
    "two_sizes.ts": lambda path: path.write_bytes(
        b"".join(
            make_clip(path.with_name(f"{size}.ts"), seconds=2, size=size).read_bytes()
            for size in ("128x72", "96x96")
        )
    ),
}


@pytest.mark.parametrize("name", VIDEOS)
def test_each_view_is_given_what_it_is_given_by_itself(tmp_path, name, runs):
    path = tmp_path / name
    VIDEOS[name](path)
    assert_as_alone(Source(str(path)), *VIEWS)
    if name == "plain.mp4":  # all in one run, but for the last two; Pillow's are of one output
        assert runs[:3] == [6, 1, 1]


@pytest.mark.parametrize(("start", "end"), [(1.5, 4.25), (None, 2), (3, None), (6.99, None)])
def test_of_a_part_too(tmp_path, start, end, runs):
    path = make_clip(tmp_path / "a.mp4", seconds=7)
    assert_as_alone(Source(str(path), start, end), *VIEWS)


def test_a_view_that_cannot_be_costs_no_other(tmp_path):
    path = make_clip(tmp_path / "a.mp4", seconds=3, size="1600x48")
    clips = replace(VIEWS["3d"], frame_rate=1, last_clip="drop")
    decoding, (whole, cropped, few) = decode(Source(str(path)), VIEWS["2d"], VIEWS["3d"], clips)
    assert "max_aspect_ratio" in str(decoding.views[0].error)
    assert (len(whole), len(few)) == (0, 0)
    assert "shorter than one clip" in str(decoding.views[2].error)
    assert decoding.views[1].error is None
    _, (expected,) = decode(Source(str(path)), VIEWS["3d"])
    assert all(map(np.array_equal, cropped, expected))
    assert len(cropped) == len(expected) == 5


def test_what_is_wrong_with_a_run_of_its_own_costs_no_other(tmp_path, monkeypatch):
    def iter_spread_frames(*_: object, **__: object):
        raise VideoError("not the same twice")
        yield

    monkeypatch.setattr(ffmpeg_decoder, "iter_spread_frames", iter_spread_frames)
    path = make_clip(tmp_path / "a.mp4", seconds=3)
    decoding, (spread, single) = decode(Source(str(path)), VIEWS["spread"], VIEWS["2d"])
    assert str(decoding.views[0].error) == "not the same twice"
    assert (len(spread), len(single), decoding.views[1].error) == (0, 3, None)


def test_what_is_wrong_with_the_video_is_raised(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"no video")
    with pytest.raises(VideoError, match="Invalid data"):
        decode(Source(str(path)), VIEWS["2d"], VIEWS["3d"])


def test_a_truncated_video_fails_for_each_view_or_is_kept(tmp_path):
    whole = make_clip(tmp_path / "whole.mkv", seconds=20)
    path = tmp_path / "a.mkv"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    names = ("2d", "3d", "own")
    assert_as_alone(Source(str(path)), *names)
    assert_as_alone(Source(str(path)), *names, truncated="keep")
    decoding, clips = decode(Source(str(path)), *map(VIEWS.get, names))
    assert all("of" in str(view.error) for view in decoding.views)
    assert all(clips)  # they come first


def test_frames_come_while_the_video_is_decoded_and_no_view_waits_for_another(tmp_path):
    path = make_clip(tmp_path / "a.mp4", seconds=60)
    with FfmpegDecoder(Settings()) as decoder:
        decoding = Decoding(decoder, Source(str(path)), VIEWS["2d"], VIEWS["3d"])
        order = [number for number, _ in decoding.clips_of_views()]
    # ffmpeg fills the pipe of each; what comes of a view is not all that there is of the other.
    first, last = order.index(1), len(order) - 1 - order[::-1].index(0)
    assert 0 in order[first:] or 1 in order[:last]

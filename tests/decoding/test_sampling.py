"""Which frames of a video are taken, and their times: all of its own, some of these, or key frames.

What PyAV decodes is the truth: it is another way to ffmpeg's libraries than ffmpeg's program.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from conftest import make_clip, run_ffmpeg
from decoding.drawn_videos import LOSSLESS, make_numbered, numbers
from decoding.hostile_videos import make_late_tag, make_still
from videofeatures.decoding.decoding import Decoding
from videofeatures.decoding.ffmpeg_decoder import FfmpegDecoder
from videofeatures.decoding.view import View
from videofeatures.errors import VideoError
from videofeatures.settings import Settings
from videofeatures.source import Source

X264 = ("-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p")
SQUARES = "testsrc2=s=64x48:r=25:d=4,select='not(mod(sqrt(n),1))'"
"""Frames 0, 1, 4, 9, 16, … of 4 s."""


def view(**options: object) -> View:
    return View(**{"frame_rate": "native", "resize_size": 48, "crop_size": 0} | options)


def decode(path: Path, seen: View, **settings: object) -> tuple[Decoding, list[np.ndarray]]:
    with FfmpegDecoder(Settings(**settings)) as decoder:
        decoding = Decoding(decoder, Source(str(path)), seen, truncated="fail")
        pixels = list(decoding.clips())
    assert decoding.times is not None
    assert [len(times) for times in decoding.times] == [len(pixels)] * 3
    return decoding, pixels


def true_times(path: Path, *, keyframes_only: bool = False) -> list[float]:
    """When each frame is shown, counted from where the file starts."""
    with av.open(str(path)) as container:
        start = (container.start_time or 0) / av.time_base
        return [
            frame.time - start
            for frame in container.decode(container.streams.video[0])
            if frame.key_frame or not keyframes_only
        ]


def make_variable(path: Path, *options: str | Path) -> Path:
    run_ffmpeg("-f", "lavfi", "-i", SQUARES, "-fps_mode", "vfr", *options, path)
    return path


VARIABLE = {
    "a.mkv": X264,
    "a.mp4": X264,
    "a.webm": ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8"),
    "b.mkv": LOSSLESS,
}


@pytest.mark.parametrize("name", VARIABLE)
def test_frames_at_any_time_come_once_with_their_times(tmp_path, name):
    path = make_variable(tmp_path / name, *VARIABLE[name])
    decoding, frames = decode(path, view())
    assert len(frames) == 10
    np.testing.assert_allclose(decoding.times.start_seconds, np.arange(10) ** 2 / 25, atol=0.001)
    np.testing.assert_allclose(decoding.times.start_seconds, true_times(path), atol=1e-9)
    np.testing.assert_array_equal(decoding.times.start_seconds[1:], decoding.times.end_seconds[:-1])
    usual = np.median(np.diff(decoding.times.start_seconds))
    assert decoding.times.end_seconds[-1] == decoding.times.start_seconds[-1] + usual
    assert not decoding.messages


CONTAINERS = {
    "a.mp4": (*X264, "-bf", "3"),
    "a.mkv": (*X264, "-bf", "3"),
    "a.ts": (*X264, "-bf", "3"),
    "a.avi": ("-c:v", "mpeg4", "-bf", "0"),
    "a.mov": ("-c:v", "mjpeg"),
    "a.flv": X264,
    "a.wmv": ("-c:v", "wmv2"),
    "a.h264": (*X264, "-bf", "2"),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_all_frames_come_in_order_from_any_container(tmp_path, name):
    source = "color=black:s=64x48:r=25:d=2,geq=lum=16+2*N:cb=128:cr=128"
    path = tmp_path / name
    run_ffmpeg("-f", "lavfi", "-i", source, *CONTAINERS[name], path)
    decoding, frames = decode(path, view())
    assert len(frames) == 50
    np.testing.assert_allclose(numbers(frames), np.arange(50), atol=1)
    starts = decoding.times.start_seconds
    np.testing.assert_allclose(np.diff(starts), 0.04, atol=0.0011)
    assert starts[0] == pytest.approx(0, abs=0.09)  # some begin with what B-frames wait for
    assert not decoding.messages


def test_times_count_from_where_the_file_starts(tmp_path):
    make_numbered(tmp_path / "a.mkv", num_frames=50, rate=25)
    late = tmp_path / "late.mkv"
    sound = ("-f", "lavfi", "-i", "sine=d=6")
    run_ffmpeg(*sound, "-itsoffset", "2", "-i", tmp_path / "a.mkv", "-c:v", "copy", late)
    decoding, frames = decode(late, view())
    assert numbers(frames) == list(range(50))
    np.testing.assert_allclose(decoding.times.start_seconds, 2 + np.arange(50) / 25, atol=0.03)
    np.testing.assert_allclose(decoding.times.start_seconds, true_times(late), atol=1e-9)
    # At a constant rate, the first one stands for the time before, too.
    constant, _ = decode(late, view(frame_rate=25))
    assert constant.num_frames == 100


def test_frames_of_the_same_time_are_all_there(tmp_path):
    # Two or three of each millisecond, which is what a Matroska file counts in.
    path = make_clip(tmp_path / "a.mkv", seconds=0.1, size="64x48", rate=2400)
    decoding, frames = decode(path, view())
    assert len(frames) == 240
    steps = np.diff(decoding.times.start_seconds)
    np.testing.assert_allclose(np.unique(steps.round(6)), [0, 0.001])
    np.testing.assert_allclose(decoding.times.start_seconds, true_times(path), atol=1e-9)
    assert not decoding.messages


def test_times_after_an_hour_are_exact(tmp_path):
    source = "color=black:s=16x16:r=30000/1001:d=1"
    run_ffmpeg("-f", "lavfi", "-i", source, *X264, tmp_path / "a.mp4")
    path = tmp_path / "late.mkv"
    late = ("-itsoffset", "3333", "-i", tmp_path / "a.mp4")
    run_ffmpeg("-f", "lavfi", "-i", "sine=d=1", *late, "-c:v", "copy", path)
    decoding, _ = decode(path, view())
    assert decoding.times.start_seconds[-1] == pytest.approx(3333 + 29 * 1001 / 30000, abs=0.03)
    np.testing.assert_allclose(decoding.times.start_seconds, true_times(path), atol=1e-6)


@pytest.mark.parametrize("frame_rate", ["native", 25, 7])
@pytest.mark.parametrize("interval", [2, 7, 60])
def test_every_so_many_th_frame_is_taken(tmp_path, frame_rate, interval):
    path = make_clip(tmp_path / "a.mp4")
    every, all_frames = decode(path, view(frame_rate=frame_rate))
    some, frames = decode(path, view(frame_rate=frame_rate, frame_interval=interval))
    assert [f.tobytes() for f in frames] == [f.tobytes() for f in all_frames[::interval]]
    for found, expected in zip(some.times, every.times, strict=True):
        np.testing.assert_allclose(found, expected[::interval], atol=1e-12)


@pytest.mark.parametrize("frame_rate", ["native", 25])
@pytest.mark.parametrize("last_clip", ["zeros", "repeat", "drop", "shift"])
@pytest.mark.parametrize(("stride", "interval"), [(None, 1), (8, 1), (None, 3), (6, 3), (5, 2)])
def test_clips_are_cut_of_the_frames(tmp_path, frame_rate, last_clip, stride, interval):
    path = make_clip(tmp_path / "a.mp4", size="64x48")
    _, frames = decode(path, view(frame_rate=frame_rate))
    windowed = view(
        frame_rate=frame_rate,
        num_frames_per_clip=8,
        clip_stride=stride,
        frame_interval=interval,
        last_clip=last_clip,
    )
    decoding, clips = decode(path, windowed)
    span, step = 7 * interval + 1, stride or 8 * interval
    starts = list(range(0, 50 - span + 1, step))
    if last_clip != "drop" and starts[-1] + span < 50 and starts[-1] + step < 50:
        starts.append(50 - span if last_clip == "shift" else starts[-1] + step)
    assert len(clips) == len(starts)
    for start, clip in zip(starts, clips, strict=True):
        real = frames[start : start + span : interval]
        fill = np.zeros_like(frames[0]) if last_clip == "zeros" else real[-1]
        np.testing.assert_array_equal(clip, np.stack(real + [fill] * (8 - len(real))))
    np.testing.assert_allclose(decoding.times.start_seconds, np.array(starts) / 25, atol=1e-9)
    ends = [max(range(start, min(start + span, 50), interval)) + 1 for start in starts]
    np.testing.assert_allclose(decoding.times.end_seconds, np.array(ends) / 25, atol=1e-9)


@pytest.mark.parametrize("num_frames", [1, 3, 8, 50, 70])
def test_frames_are_spread_over_all_of_a_video(tmp_path, num_frames):
    path = make_numbered(tmp_path / "a.mkv", num_frames=50, rate=25)
    decoding, frames = decode(path, view(num_frames=num_frames, frame_rate=1))
    expected = np.linspace(0, 49, num_frames).astype(int)
    assert numbers(frames) == expected.tolist()
    np.testing.assert_allclose(decoding.times.start_seconds, expected / 25, atol=0.001)
    np.testing.assert_allclose(decoding.times.end_seconds, (expected + 1) / 25, atol=0.001)
    assert decoding.share == 1


def make_edited(path: Path) -> Path:
    """Copied from the middle of a group of pictures on: an edit list cuts off what is before."""
    whole = make_clip(path.with_stem("whole"), seconds=4, codec=(*X264, "-g", "50", "-bf", "2"))
    run_ffmpeg("-ss", "1", "-i", whole, "-c", "copy", path)
    return path


def make_headless(path: Path) -> Path:
    """An MPEG-TS whose first key frame is gone, with what cannot be decoded without it."""
    whole = make_clip(path.with_stem("whole"), seconds=4, codec=(*X264, "-g", "25"))
    content = whole.read_bytes()
    path.write_bytes(content[: 3 * 188] + content[len(content) // 8 // 188 * 188 :])
    return path


def make_resized(path: Path) -> Path:
    """The size of the pictures changes in mid-stream."""
    parts = [
        make_clip(path.with_stem(size), seconds=2, size=size, codec=X264).read_bytes()
        for size in ("64x48", "96x80")
    ]
    path.write_bytes(b"".join(parts))
    return path


ODD = {"edited.mp4": make_edited, "headless.ts": make_headless, "resized.ts": make_resized}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("options", [{"num_frames": 8}, {"frame_interval": 7}])
def test_odd_videos_give_some_of_the_frames_that_they_have(tmp_path, name, options):
    path = ODD[name](tmp_path / name)
    every, all_frames = decode(path, view())
    assert len(all_frames) >= 50
    some, frames = decode(path, view(**options))
    total = len(all_frames)
    places = np.linspace(0, total - 1, 8).astype(int) if "num_frames" in options else None
    if places is None and name != "resized.ts":
        places = np.arange(0, total, 7)
    if places is None:  # ffmpeg makes its filters anew, and they count from there
        places = np.array([*range(0, 50, 7), *range(50, 100, 7)])
    for found, expected in zip(some.times, every.times, strict=True):
        np.testing.assert_array_equal(found, expected[places])
    for place, frame in zip(places, frames, strict=True):
        np.testing.assert_array_equal(frame, all_frames[place])


def test_one_clip_of_a_whole_video(tmp_path):
    path = make_clip(tmp_path / "a.mp4", size="64x48")
    _, frames = decode(path, view())
    decoding, (clip,) = decode(path, view(num_frames=16, num_frames_per_clip=16))
    np.testing.assert_array_equal(clip, np.stack(frames)[np.linspace(0, 49, 16).astype(int)])
    assert [times.tolist() for times in decoding.times] == [[0], [1], [2]]


def make_with_keys(path: Path, *options: str, seconds: float = 6) -> Path:
    """Key frames after 0, 2 and 3 s alone."""
    codec = (*X264, "-g", "1000", "-sc_threshold", "0", "-force_key_frames", "0,2,3")
    return make_clip(path, seconds=seconds, codec=(*codec, *options))


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_key_frames_alone_stand_for_the_time_until_the_next(tmp_path, name):
    path = make_with_keys(tmp_path / name)
    _, all_frames = decode(path, view())
    decoding, frames = decode(path, view(keyframes_only=True))
    places = [0, 50, 75]
    assert [f.tobytes() for f in frames] == [all_frames[place].tobytes() for place in places]
    starts = decoding.times.start_seconds
    np.testing.assert_allclose(starts, true_times(path, keyframes_only=True), atol=1e-6)
    np.testing.assert_allclose(np.diff(starts), [2, 1], atol=0.001)
    np.testing.assert_array_equal(decoding.times.end_seconds[:-1], starts[1:])
    assert 3 < decoding.times.end_seconds[-1] <= 6
    assert decoding.damage.num_frames == 3  # that were decoded
    assert (decoding.warning, list(decoding.messages)) == (None, [])


def test_key_frames_of_codecs_that_skip_in_other_ways(tmp_path):
    codecs = {
        "a.webm": ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-g", "20"),
        "b.webm": ("-c:v", "libvpx", "-deadline", "realtime", "-g", "20"),
        "a.avi": ("-c:v", "mpeg4", "-g", "20"),
        "a.mov": ("-c:v", "mjpeg"),
        "b.mp4": (
            "-c:v",
            "libx265",
            "-x265-params",
            "keyint=20:log-level=none",
            "-preset",
            "ultrafast",
        ),
    }
    for name, codec in codecs.items():
        path = make_clip(tmp_path / name, codec=codec, size="64x48")
        decoding, _ = decode(path, view(keyframes_only=True))
        expected = true_times(path, keyframes_only=True)
        np.testing.assert_allclose(decoding.times.start_seconds, expected, atol=1e-6)
        assert len(expected) == (50 if name == "a.mov" else 3)


def test_one_key_frame_stands_for_its_whole_video(tmp_path):
    path = make_clip(tmp_path / "a.mp4", codec=(*X264, "-g", "1000"))
    decoding, (_,) = decode(path, view(keyframes_only=True))
    assert [times.tolist() for times in decoding.times] == [[0], [1], [2]]


@pytest.mark.parametrize("options", [{}, {"num_frames": 8}, {"keyframes_only": True}])
def test_a_video_that_is_cut_off_is_told_as_ever(tmp_path, options):
    path = make_with_keys(tmp_path / "a.mkv")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 3 // 4])
    with pytest.raises(VideoError, match=r"^ends at \d s of 6 s: truncated$"):
        decode(path, view(**options))


@pytest.mark.parametrize("options", [{}, {"num_frames": 8}, {"keyframes_only": True}])
def test_times_that_jump_are_told_as_ever(tmp_path, options):
    path = make_late_tag(tmp_path / "a.flv", 100_000)
    with pytest.raises(VideoError, match=r"one picture stands for|damaged times"):
        decode(path, view(**options))
    long = make_still(tmp_path / "still.mkv", 1800)
    decoding, frames = decode(long, view())
    assert len(frames) == 100
    assert max(b - a for a, b in pairwise(decoding.times.start_seconds)) > 1700


def test_packets_are_skipped_at_constant_rates_alone(tmp_path, monkeypatch):
    path = make_with_keys(tmp_path / "a.mp4", seconds=14)
    for options in ({}, {"num_frames": 8}, {"keyframes_only": True}):
        _, plain = decode(path, view(**options))
        _, skipping = decode(path, view(**options), skip_unused=True)
        assert [f.tobytes() for f in plain] == [f.tobytes() for f in skipping]


def test_a_still_image_is_one_frame(tmp_path):
    run_ffmpeg("-f", "lavfi", "-i", "testsrc2=s=64x48", "-frames:v", "1", tmp_path / "a.png")
    for options in ({}, {"keyframes_only": True}):
        assert len(decode(tmp_path / "a.png", view(**options))[1]) == 1
    assert len(decode(tmp_path / "a.png", view(num_frames=4))[1]) == 4

"""The right frames, the right way up, in the right colours."""

from __future__ import annotations

import os
import subprocess
import time
import tracemalloc
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from conftest import make_clip, run_ffmpeg
from decoding.drawn_videos import corners, make_corners, make_numbered, numbers
from decoding.hostile_videos import make_still
from decoding.one_view import iter_frames
from videofeatures.decoding.decoder import VideoMetadata
from videofeatures.decoding.frames import resized_size
from videofeatures.decoding.process import MemoryLimitError
from videofeatures.decoding.resizing import Resizing
from videofeatures.decoding.view import View
from videofeatures.errors import VideoError


def view(resize_size: int, **options: bool) -> View:
    return View(frame_rate=1, resize_size=resize_size, crop_size=0, **options)


@pytest.mark.parametrize(
    ("width", "height", "aspect", "resize_size", "expected"),
    [
        (1920, 1080, 1, 224, (398, 224)),
        (1920, 1080, 1, 112, (199, 112)),
        (320, 240, 1, 224, (298, 224)),
        (320, 240, 1, 112, (149, 112)),
        (240, 320, 1, 224, (224, 298)),
        (224, 224, 1, 224, (224, 224)),
        (16, 16, 1, 224, (224, 224)),
        (720, 576, Fraction(64, 45), 224, (398, 224)),
        (144, 176, Fraction(117, 128), 112, (112, 149)),
    ],
)
def test_the_short_side_is_exact_and_the_long_side_truncated(
    width, height, aspect, resize_size, expected
):
    metadata = VideoMetadata(width, height, Fraction(aspect), 1.0, 25.0, "h264")
    assert resized_size(metadata, view(resize_size)) == expected


def test_pixels_can_be_taken_for_square_as_in_the_original():
    metadata = VideoMetadata(720, 576, Fraction(64, 45), 1.0, 25.0, "h264")
    assert resized_size(metadata, view(224, square_pixels=False)) == (280, 224)


@pytest.mark.parametrize(
    ("num_frames", "rate", "frame_rate", "expected"),
    [
        # The last frame that is shown before second k + 0.5: as the original, measured.
        (100, 25, 1, [12, 37, 62, 87]),
        (63, 25, 1, [12, 37, 62]),  # 2.52 s are three frames
        (62, 25, 1, [12, 37]),  # 2.48 s are two
        (24, 24, 24, list(range(24))),
        (12, 12, 24, [k // 2 for k in range(24)]),
        (50, 50, 25, list(range(0, 50, 2))),
        (10, 25, 1, [0]),  # 0.4 s, for which the original has nothing
        (1, 25, 24, [0]),
        (1, 100, 24, [0]),
    ],
)
def test_which_frames_are_taken(tmp_path, num_frames, rate, frame_rate, expected):
    path = make_numbered(tmp_path / "a.mkv", num_frames=num_frames, rate=rate)
    assert (
        numbers(iter_frames(str(path), Resizing(size=(64, 48)), frame_rate=frame_rate)) == expected
    )


def test_a_still_image_gives_its_picture_once(tmp_path):
    path = make_corners(tmp_path / "a.png", "-frames:v", "1", "-c:v", "png")
    (frame,) = iter_frames(str(path), Resizing(size=(320, 240)), frame_rate=1)
    assert corners(frame) == ["red", "lime", "blue", "black"]


def test_frames_are_uint8_rgb_of_the_size_asked_for(tmp_path):
    path = make_corners(tmp_path / "a.mkv")
    frames = list(iter_frames(str(path), Resizing(size=(298, 224)), frame_rate=1))
    assert [(frame.shape, frame.dtype) for frame in frames] == [((224, 298, 3), np.uint8)] * 2
    assert all(corners(frame) == ["red", "lime", "blue", "black"] for frame in frames)


@pytest.mark.parametrize("size", ["320x240", "240x320", "202x150", "398x112"])
def test_the_crop_is_the_centre(tmp_path, size):
    width, height = map(int, size.split("x"))
    # Columns tell x and rows tell y, so that the crop's place can be read off its pixels.
    source = f"color=black:s={size}:r=5:d=1,format=gbrp,geq=r=X/2:g=Y/2:b=0"
    path = tmp_path / "a.mkv"
    run_ffmpeg("-f", "lavfi", "-i", source, "-c:v", "ffv1", "-pix_fmt", "gbrp", path)
    frame = next(
        iter_frames(str(path), Resizing(size=(width, height), crop_size=112), frame_rate=5)
    )
    x, y = int((width - 112) / 2), int((height - 112) / 2)
    assert frame.shape == (112, 112, 3)
    np.testing.assert_allclose(frame[0, :, 0], (x + np.arange(112)) // 2, atol=1)
    np.testing.assert_allclose(frame[:, 0, 1], (y + np.arange(112)) // 2, atol=1)


def test_the_scaler_does_what_it_is_asked(real_clips):
    path = str(real_clips["bikes"])
    frames = {
        how: next(iter_frames(path, Resizing(size=(527, 224), interpolation=how), frame_rate=1))
        for how in ("bilinear", "bicubic", "area", "lanczos")
    }
    sharpness = {
        how: np.abs(np.diff(frame.astype(int), axis=1)).mean() for how, frame in frames.items()
    }
    assert len({frame.tobytes() for frame in frames.values()}) == 4
    assert sharpness["bilinear"] < sharpness["bicubic"] < sharpness["lanczos"]


def test_frames_are_those_of_a_plain_ffmpeg_command(real_clips):
    import imageio_ffmpeg

    for path in real_clips.values():
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", path, "-filter_complex"]
        chain = "fps=1,scale=398:224:flags=bilinear"
        output = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
        raw = subprocess.run([*command, chain, *output], capture_output=True, check=True).stdout
        expected = np.frombuffer(raw, np.uint8).reshape(-1, 224, 398, 3)
        found = np.stack(list(iter_frames(str(path), Resizing(size=(398, 224)), frame_rate=1)))
        np.testing.assert_array_equal(found, expected)


def test_a_video_stream_that_starts_late_repeats_its_first_sample(tmp_path):
    late = tmp_path / "late.mkv"
    make_numbered(tmp_path / "a.mkv", num_frames=100, rate=25)
    sound = ("-f", "lavfi", "-i", "sine=d=6")
    run_ffmpeg(*sound, "-itsoffset", "2", "-i", tmp_path / "a.mkv", "-c:v", "copy", late)
    assert numbers(iter_frames(str(late), Resizing(size=(64, 48)), frame_rate=1)) == [
        12,
        12,
        12,
        37,
        62,
        87,
    ]


def test_a_failure_of_ffmpeg_is_not_taken_for_the_end(tmp_path):
    path = make_clip(tmp_path / "a.mp4")
    with pytest.raises(VideoError, match=r"ffmpeg failed: .*nonsense"):
        list(
            iter_frames(
                str(path), Resizing(size=(320, 240), interpolation="nonsense"), frame_rate=1
            )
        )


def test_ffmpeg_ends_when_nobody_wants_more_frames(tmp_path):
    path = make_clip(tmp_path / "a.mp4", seconds=60)
    frames = iter_frames(str(path), Resizing(size=(320, 240)), frame_rate=25)
    next(frames)
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    before = children.read_text().split()
    frames.close()
    assert len(before) - len(children.read_text().split()) == 1


def test_a_long_video_is_never_in_memory(tmp_path):
    # 60 s at 25 frames a second and 640×480 are 1.4 GB of frames.
    path = make_clip(tmp_path / "a.mp4", seconds=60, size="640x480")
    tracemalloc.start()  # NumPy reports its arrays to it
    try:
        count = sum(1 for _ in iter_frames(str(path), Resizing(size=(640, 480)), frame_rate=25))
        peak_mb = tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()
    assert count == 1500
    assert 0.9 < peak_mb < 10  # one frame, at least, is 0.9 MB


@pytest.mark.parametrize("frame_rate", [1, 24])
def test_a_picture_that_stands_still_takes_no_memory(tmp_path, monkeypatch, frame_rate):
    path = make_still(tmp_path / "a.mkv", 1800)
    options = {"frame_rate": frame_rate, "memory_bytes": 200 << 20}
    frames = iter_frames(str(path), Resizing(size=(398, 224)), **options)
    assert sum(1 for _ in frames) / frame_rate == pytest.approx(1804, abs=0.1)
    monkeypatch.setattr("videofeatures.decoding.frames.can_chain_graphs", lambda stopped: False)
    frames = iter_frames(str(path), Resizing(size=(398, 224)), **options)
    with pytest.raises(MemoryLimitError):
        take_slowly(frames)


def take_slowly(frames: Iterator[np.ndarray]) -> None:
    """Take frames, the first ones not as fast as they come: else, few may wait at a time."""
    for number, _ in enumerate(frames):
        time.sleep(0.01 if number < 200 else 0)


def test_frames_are_the_same_with_an_ffmpeg_that_cannot_chain_graphs(real_clips, monkeypatch):
    for path in real_clips.values():
        plain = [
            f.tobytes() for f in iter_frames(str(path), Resizing(size=(398, 224)), frame_rate=5)
        ]
        name = "videofeatures.decoding.frames.can_chain_graphs"
        with monkeypatch.context() as patch:
            patch.setattr(name, lambda stopped: False)
            assert plain == [
                f.tobytes() for f in iter_frames(str(path), Resizing(size=(398, 224)), frame_rate=5)
            ]

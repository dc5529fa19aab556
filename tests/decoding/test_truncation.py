"""What is missing at a video's end is told, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import run_ffmpeg
from videofeatures.decoding.ffmpeg_decoder import FfmpegDecoder
from videofeatures.decoding.probe import probe_video
from videofeatures.decoding.truncation import find_truncation
from videofeatures.decoding.view import View
from videofeatures.errors import VideoError
from videofeatures.settings import Settings
from videofeatures.source import Source

X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-g", "25")
FASTSTART = ("-movflags", "+faststart")


def make(path: Path, *options: str, seconds: float = 10, sound: float | None = None) -> Path:
    """A video, with sound of some seconds, if asked for."""
    inputs = ["-f", "lavfi", "-i", f"testsrc2=s=64x48:r=25:d={seconds}"]
    if sound is not None:
        inputs += ["-f", "lavfi", "-i", f"sine=d={sound}"]
    run_ffmpeg(*inputs, *(options or X264), path)
    return path


def cut(path: Path, part: float = 0.5) -> Path:
    """Only the first part of a file's bytes is left."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    return path


def find(path: Path, num_frames: int, frame_rate: float = 1.0) -> str | None:
    return find_truncation(
        str(path), probe_video(str(path)).duration_seconds, num_frames, frame_rate
    )


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mkv", X264),
        ("a.mp4", (*X264, *FASTSTART)),
        ("a.avi", ("-c:v", "mpeg4")),
        ("a.flv", ("-c:v", "flv1")),
    ],
)
def test_a_file_that_was_cut_off_is_told(tmp_path, name, options):
    path = make(tmp_path / name, *options)
    assert find(path, 10) is None
    assert find(cut(path), 5) in (f"ends at {k} s of 10 s: truncated" for k in (4, 5, 6))


def test_other_formats_promise_nothing(tmp_path):
    assert find(cut(make(tmp_path / "a.ts")), 1) is None


@pytest.mark.parametrize(
    ("num_frames", "expected"),
    [(10, None), (9, None), (8, "decoding stops at 8 s of 10 s: damaged")],
)
def test_a_decoder_that_gives_up_before_the_last_packet_is_told(tmp_path, num_frames, expected):
    assert find(make(tmp_path / "a.mp4"), num_frames) == expected


def test_the_frame_rate_counts(tmp_path):
    path = make(tmp_path / "a.mp4")
    assert find(path, 200, 24.0) is not None
    assert find(path, 239, 24.0) is None


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_pictures_may_be_shorter_than_the_sound(tmp_path, name):
    assert find(make(tmp_path / name, *X264, seconds=4, sound=10), 4) is None


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_file_that_begins_late_is_whole(tmp_path, name):
    assert find(make(tmp_path / name, *X264, "-output_ts_offset", "20"), 10) is None


def test_nothing_is_read_where_nothing_is_promised_or_missing(tmp_path):
    for seconds, num_frames in ((None, 1), (10.0, 10), (10.0, 9), (1.0, 100)):
        assert find_truncation(str(tmp_path / "nothing"), seconds, num_frames, 1.0) is None


def test_each_packet_is_a_sign_of_life(tmp_path):
    packets: list[None] = []
    path = str(make(tmp_path / "a.mkv"))
    find_truncation(path, 10.0, 1, 1.0, on_packet=lambda: packets.append(None))
    assert len(packets) >= 250


def test_a_file_that_is_gone_or_another_by_now_costs_its_row(tmp_path):
    path = make(tmp_path / "a.mp4")
    source = Source(str(path))
    view = View(frame_rate=1, resize_size=32, crop_size=0)
    with FfmpegDecoder(Settings()) as decoder:
        metadata = decoder.probe(source)
        assert decoder.find_truncation(source, metadata, view, 10) is None
        expected = "decoding stops at 2 s of 10 s: damaged"
        assert decoder.find_truncation(source, metadata, view, 2) == expected
        run_ffmpeg("-f", "lavfi", "-i", "sine=d=10", path)
        with pytest.raises(VideoError, match=r"^no video stream$"):
            decoder.find_truncation(source, metadata, view, 2)
        path.unlink()
        with pytest.raises(VideoError, match=r"^No such file or directory$"):
            decoder.find_truncation(source, metadata, view, 2)

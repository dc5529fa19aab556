"""What is missing at a video's end is told, and nothing else is."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from conftest import run_ffmpeg
from videofeatures.decoding.ffmpeg_decoder import FfmpegDecoder
from videofeatures.decoding.packets import look_at_packets
from videofeatures.decoding.probe import probe_video
from videofeatures.decoding.truncation import explain_end, is_short
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
    seconds, rounding = num_frames / frame_rate, 0.5 / frame_rate
    if not is_short(probe_video(str(path)).duration_seconds, seconds + rounding):
        return None
    return explain_end(look_at_packets(str(path)), seconds, rounding_seconds=rounding)


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


def add_subtitles(path: Path, until: int, *options: str, seconds: float = 10) -> Path:
    """Pictures, and a subtitle that stands until some second."""
    text = path.with_suffix(".srt")
    text.write_text(f"1\n00:00:{until - 5},000 --> 00:00:{until},000\nx\n")
    pictures = ("-f", "lavfi", "-i", f"testsrc2=s=64x48:r=25:d={seconds}")
    run_ffmpeg(*pictures, "-i", text, "-map", "0", "-map", "1", *X264, *options, path)
    return path


def without_tags(path: Path) -> Path:
    path.write_bytes(path.read_bytes().replace(b"DURATION", b"IGNORED_"))
    return path


@pytest.mark.parametrize(
    ("name", "options", "is_tagged"),
    [
        ("a.mkv", ("-c:s", "srt"), True),
        ("a.mkv", ("-c:s", "srt"), False),
        ("a.webm", ("-c:v", "vp8", "-c:s", "webvtt"), True),
        ("a.mp4", ("-c:s", "mov_text"), True),
        ("a.mp4", ("-c:s", "mov_text", *FASTSTART), True),
        ("a.mp4", ("-c:s", "mov_text", "-movflags", "+frag_keyframe+empty_moov"), True),
    ],
)
def test_subtitles_may_last_longer_than_the_pictures(tmp_path, name, options, is_tagged):
    path = add_subtitles(tmp_path / name, 40, *options)
    if not is_tagged:
        without_tags(path)
    assert find(path, 10) is None
    # Pictures that are missing are not made up for by them.
    if path.suffix != ".mp4" or FASTSTART[1] in options:  # in others, the index is gone
        assert re.fullmatch(r"ends at [456] s of [14]0 s: truncated", find(cut(path), 5))


def test_sound_that_was_cut_off_after_the_last_picture_is_not_missed(tmp_path):
    path = make(tmp_path / "a.mkv", *X264, seconds=2, sound=20)
    assert find(cut(path, 0.9), 2) is None


def test_tags_that_do_not_account_for_the_file_do_not_count(tmp_path):
    path = make(tmp_path / "a.mkv")
    content = path.read_bytes()
    path.write_bytes(content.replace(b"00:00:10.0", b"00:00:01.0"))
    assert find(path, 10) is None
    assert find(cut(path), 5) is not None


def make_fragments(folder: Path, seconds: int = 10) -> list[Path]:
    """An initialisation, and fragments of two seconds."""
    pictures = ("-f", "lavfi", "-i", f"testsrc2=s=64x48:r=25:d={seconds}")
    dash = ("-g", "50", "-f", "dash", "-seg_duration", "2")
    run_ffmpeg(*pictures, *X264, *dash, folder / "a.mpd")
    return [folder / "init-stream0.m4s", *sorted(folder.glob("chunk-*.m4s"))]


def join(path: Path, parts: Iterable[Path]) -> Path:
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


@pytest.mark.parametrize(
    ("numbers", "seconds"), [([5], 2), ([3, 4, 5], 6), ([1, 2], 4), ([1, 5], 10), ([1, 4], 8)]
)
def test_fragments_may_start_late_and_have_gaps(tmp_path, numbers, seconds):
    parts = make_fragments(tmp_path)
    path = join(tmp_path / "b.mp4", [parts[0], *(parts[k] for k in numbers)])
    assert find(path, seconds) is None
    assert probe_video(str(path)).duration_seconds == pytest.approx(seconds, abs=0.05)


@pytest.mark.parametrize("first", [1, 4])
def test_fragments_that_were_cut_off_are_told(tmp_path, first):
    parts = make_fragments(tmp_path)
    path = join(tmp_path / "b.mp4", [parts[0], *parts[first:]])
    last = parts[-1].stat().st_size
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - int(last * 0.8)])
    whole = 12 - 2 * first
    assert find(path, whole - 2) == f"ends at {whole - 2} s of {whole} s: truncated"


@pytest.mark.parametrize(
    "options", [("-movflags", "+frag_keyframe+empty_moov+delay_moov"), FASTSTART, ()]
)
def test_pictures_that_an_edit_list_delays_are_whole(tmp_path, options):
    late = ("-itsoffset", "3", "-f", "lavfi", "-i", "testsrc2=s=64x48:r=25:d=4")
    path = tmp_path / "a.mp4"
    run_ffmpeg(*late, "-f", "lavfi", "-i", "sine=d=12", *X264, *options, path)
    assert find(path, 7) is None


def test_a_recording_that_says_nothing_promises_nothing(tmp_path):
    path = make(tmp_path / "a.mkv", *X264, "-live", "1")
    assert probe_video(str(path)).duration_seconds is None
    assert find(cut(path), 5) is None


def test_nothing_is_short_where_nothing_is_promised_or_missing():
    for promised, decoded in ((None, 1), (10.0, 10), (10.0, 9), (1.0, 100)):
        assert not is_short(promised, decoded)
    assert is_short(10.0, 8.9)
    assert not is_short(10.0, 4.5, end_seconds=5)
    assert is_short(10.0, 3.9, end_seconds=5)


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
        gone = r"^the file was removed while it was read: No such file or directory$"
        with pytest.raises(VideoError, match=gone):
            decoder.find_truncation(source, metadata, view, 2)

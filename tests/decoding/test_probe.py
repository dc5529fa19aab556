"""What is known of a video before it is decoded; and what is said of one that cannot be."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import pytest

from conftest import run_ffmpeg
from decoding.drawn_videos import corners, make_corners, make_numbered, numbers
from decoding.one_view import iter_frames
from videofeatures.decoding.decoder import VideoMetadata
from videofeatures.decoding.ffmpeg_decoder import FfmpegDecoder
from videofeatures.decoding.frames import resized_size
from videofeatures.decoding.resizing import Resizing
from videofeatures.decoding.view import View
from videofeatures.errors import VideoError
from videofeatures.settings import Settings
from videofeatures.source import Source


@pytest.fixture(scope="module")
def probe() -> Iterator[Callable[[str | Path], VideoMetadata]]:
    with FfmpegDecoder(Settings()) as decoder:
        yield lambda path: decoder.probe(Source(str(path)))


def view(resize_size: int, **options: bool) -> View:
    return View(frame_rate=1, resize_size=resize_size, crop_size=0, **options)


def test_facts_of_a_real_clip(probe, real_clips):
    found = probe(real_clips["carphone_pristine"])
    assert (found.width, found.height) == (176, 144)
    assert found.sample_aspect_ratio == Fraction(128, 117)
    assert found.duration_seconds == pytest.approx(4.004)
    assert found.average_fps == pytest.approx(29.97, abs=0.001)
    assert found.codec == "h264"


@pytest.mark.parametrize(
    ("degrees", "upright"),
    [
        # ffmpeg's option turns counter-clockwise.
        (90, ["lime", "black", "red", "blue"]),
        (180, ["black", "blue", "lime", "red"]),
        (270, ["blue", "red", "black", "lime"]),
    ],
)
def test_rotated_videos_come_out_upright_and_in_proportion(probe, tmp_path, degrees, upright):
    plain = make_corners(tmp_path / "plain.mp4", "-c:v", "libx264", "-pix_fmt", "yuv444p")
    path = tmp_path / "rotated.mp4"
    run_ffmpeg("-display_rotation", degrees, "-i", plain, "-c", "copy", path)
    metadata = probe(path)
    turned = degrees != 180
    assert (metadata.width, metadata.height) == ((240, 320) if turned else (320, 240))
    size = resized_size(metadata, view(224))
    assert size == ((224, 298) if turned else (298, 224))
    frame = next(iter_frames(str(path), Resizing(size=size), frame_rate=1))
    assert corners(frame) == upright
    # In proportion: each box is a quarter of its side.
    height, width, _ = frame.shape
    box = (frame > 127).any(axis=2)
    assert box[: height // 4 - 3].any(axis=1).all()
    assert not box[height // 2].any()
    assert not box[:, width // 2].any()


def test_anamorphic_videos_get_their_proportions(probe, tmp_path):
    path = make_corners(tmp_path / "a.mkv", sar="4/3")
    metadata = probe(path)
    assert resized_size(metadata, view(240)) == (426, 240)
    assert resized_size(metadata, view(240, square_pixels=False)) == (320, 240)


def test_rotation_turns_the_shape_of_pixels_too(probe, tmp_path):
    plain = make_corners(tmp_path / "p.mp4", "-c:v", "libx264", "-pix_fmt", "yuv444p", sar="2")
    path = tmp_path / "rotated.mp4"
    run_ffmpeg("-display_rotation", 90, "-i", plain, "-c", "copy", path)
    metadata = probe(path)
    assert metadata.sample_aspect_ratio == Fraction(1, 2)
    assert resized_size(metadata, view(100)) == (100, 266)


def test_cover_art_is_no_video(probe, tmp_path):
    cover, music = tmp_path / "cover.png", tmp_path / "music.mp4"
    make_corners(cover, "-frames:v", "1", "-c:v", "png")
    sound = ("-f", "lavfi", "-i", "sine=d=1")
    disposition = ("-disposition:v", "attached_pic")
    maps = ("-map", "0", "-map", "1")
    run_ffmpeg(*sound, "-i", cover, *maps, "-c:v", "copy", *disposition, music)
    with pytest.raises(VideoError, match=r"^no video stream but cover art$"):
        probe(music)
    run_ffmpeg(*sound, tmp_path / "sound.m4a")
    with pytest.raises(VideoError, match=r"^no video stream$"):
        probe(tmp_path / "sound.m4a")


@pytest.mark.parametrize(
    "name",
    ["-v.mkv", "a:b.mkv", "%03d.mkv", "http:.mkv", "é 日本 {x} '$;*?[a].mkv", 'a,b\\c"d.mkv'],
)
def test_paths_are_taken_literally(probe, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    make_numbered(Path("a.mkv"), num_frames=25, rate=25).rename(name)
    assert probe(name).width == 64
    assert numbers(iter_frames(name, Resizing(size=(64, 48)), frame_rate=1)) == [12]


def test_a_path_need_not_be_utf8(probe, tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\n.mkv")
    make_numbered(tmp_path / "a.mkv", num_frames=25, rate=25).rename(path)
    assert probe(path).width == 64


SOUND = ("-f", "lavfi", "-i", "sine=d=1")


@pytest.mark.parametrize(
    "kind",
    ["mp3", "aac", "flac", "wav", "ogg", "oga", "opus", "ac3", "aiff", "wma", "mka", "amr", "au"],
)
def test_sound_under_any_name_has_no_video_stream(probe, tmp_path, kind):
    path = tmp_path / "a.mp4"
    rate = ("-ar", "8000") if kind == "amr" else ()
    run_ffmpeg(*SOUND, *rate, sound := tmp_path / f"a.{kind}")
    sound.rename(path)
    with pytest.raises(VideoError, match=r"^no video stream$"):
        probe(path)


@pytest.mark.parametrize("name", ["a.mp4", "a.svg", "a.srt", "a.txt", "a"])
@pytest.mark.parametrize("kind", ["srt", "vtt", "ass", "svg"])
def test_subtitles_and_drawings_under_any_name_have_no_video_stream(probe, tmp_path, kind, name):
    path = tmp_path / f"made.{kind}"
    if kind == "svg":
        path.write_text('<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>\n')
    else:
        text = tmp_path / "text.srt"
        text.write_text("1\n00:00:00,000 --> 00:00:20,000\nx\n")
        run_ffmpeg("-i", text, path)
    path.rename(tmp_path / name)
    with pytest.raises(VideoError, match=r"^no video stream$"):
        probe(tmp_path / name)


@pytest.mark.parametrize("name", ["a.mp4", "a.bin", "a.txt", "a.xb", "a.idf", "a.ans"])
def test_no_picture_is_drawn_from_text(probe, tmp_path, name):
    path = tmp_path / name
    path.write_text("\x1b[31mhello\x1b[0m\n" * 100)
    with pytest.raises(VideoError, match=r"^text, not a video"):
        probe(path)


def test_a_segment_without_its_beginning_is_told(probe, tmp_path):
    film = ("-f", "lavfi", "-i", "testsrc2=s=64x48:d=2", "-c:v", "libx264")
    run_ffmpeg(*film, "-f", "dash", tmp_path / "a.mpd")
    path = tmp_path / "a.mp4"
    (tmp_path / "chunk-stream0-00001.m4s").rename(path)
    with pytest.raises(VideoError, match=r"^a segment of a stream without the init segment"):
        probe(path)


def test_what_cannot_be_read_is_named(probe, tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "dangling.mp4").symlink_to("nothing-here.mp4")
    for name, reason in {
        "nothing.mp4": "no such file",
        "dangling.mp4": "a link to a file that is not there",
        "pipe.mp4": "is not a file but a pipe or a device: give its content as a file",
        ".": "is a folder",
        "x" * 300: "File name too long",
        "a\0.mp4": "no path of a file: embedded null byte",
        "\udcff.mp4": "no such file",
    }.items():
        with pytest.raises(VideoError) as error:
            probe(tmp_path / name)
        assert (error.value.reason, error.value.ffmpeg_lines) == (reason, [])


def test_what_ffmpeg_says_of_broken_content_is_told(probe, tmp_path):
    text = tmp_path / "text.mp4"
    for content, kind in ((b"\1\2\3\4", ""), (b"a text", "text, not a video: ")):
        text.write_bytes(content)
        with pytest.raises(VideoError) as error:
            probe(text)
        reason = f"{kind}Invalid data found when processing input: moov atom not found"
        assert error.value.reason == reason
    assert "moov atom not found" in error.value.ffmpeg_lines[0]


def test_a_playlist_is_only_for_those_who_trust_it(probe, tmp_path):
    make_numbered(tmp_path / "part.mkv", num_frames=25, rate=25)
    path = tmp_path / "list.mp4"
    path.write_text("ffconcat version 1.0\nfile part.mkv\n")
    with pytest.raises(VideoError, match=r"^a playlist, or a format that makes ffmpeg open other"):
        probe(path)
    with FfmpegDecoder(Settings(local_files_only=False)) as decoder:
        assert decoder.probe(Source(str(path))).width == 64


def test_a_video_without_one_good_frame_is_told(probe, tmp_path):
    path = tmp_path / "a.mp4"
    run_ffmpeg("-f", "lavfi", "-i", "testsrc2=s=64x48:d=1", "-c:v", "libx264", path)
    content = bytearray(path.read_bytes())
    begin = content.index(b"mdat") + 4
    end = content.index(b"moov") - 4
    content[begin:end] = bytes(end - begin)
    path.write_bytes(content)
    with pytest.raises(VideoError, match=r"^no frame of the video can be decoded$") as error:
        probe(path)
    assert error.value.ffmpeg_lines

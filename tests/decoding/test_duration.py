"""How long pictures last, as headers say, beside what lasts longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import run_ffmpeg
from videofeatures.decoding.duration import find_duration, start_seconds
from videofeatures.decoding.probe import first_video_stream, open_container

X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-g", "25")


def look(path: Path) -> tuple[float, bool, float] | None:
    """(seconds, is_of_pictures, start)."""
    with open_container(str(path), local_files_only=True) as container:
        duration = find_duration(container, first_video_stream(container))
        return duration and (*duration, start_seconds(container))


def make(path: Path, *options: object, late: float = 0, sound: float | None = 12) -> Path:
    """Pictures of six seconds that begin late, with sound."""
    inputs = ["-itsoffset", late, "-f", "lavfi", "-i", "testsrc2=s=64x48:r=25:d=6"]
    if sound is not None:
        inputs += ["-f", "lavfi", "-i", f"sine=d={sound}"]
    run_ffmpeg(*inputs, *(options or X264), path)
    return path


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv", "a.webm"])
@pytest.mark.parametrize("late", [0, 2])
def test_what_counts_is_the_track_of_the_pictures(tmp_path, name, late):
    options = ("-c:v", "vp8") if name == "a.webm" else X264
    seconds, is_of_pictures, start = look(make(tmp_path / name, *options, late=late))
    assert (is_of_pictures, start) == (True, 0)
    assert seconds == pytest.approx(6 + late, abs=0.05)


def test_an_avi_tells_how_many_frames_it_has(tmp_path):
    path = make(tmp_path / "a.avi", "-c:v", "mpeg4", "-c:a", "mp3")
    seconds, is_of_pictures, _ = look(path)
    assert is_of_pictures
    assert seconds == pytest.approx(6, abs=0.05)


@pytest.mark.parametrize("name", ["a.flv", "a.ts", "a.wmv"])
def test_other_formats_tell_how_long_the_file_is(tmp_path, name):
    path = make(tmp_path / name, "-c:v", "mpeg2video" if name == "a.ts" else "flv1")
    seconds, is_of_pictures, _ = look(path)
    assert not is_of_pictures
    assert seconds == pytest.approx(12, abs=0.1)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_time_before_the_file_starts_does_not_count(tmp_path, name):
    path = make(tmp_path / name, *X264, "-output_ts_offset", 20, sound=None)
    seconds, is_of_pictures, _ = look(path)
    assert is_of_pictures
    assert seconds == pytest.approx(6, abs=0.1)


def rewrite(path: Path, *pairs: tuple[bytes, bytes]) -> Path:
    content = path.read_bytes()
    for old, new in pairs:
        assert old in content
        assert len(old) == len(new)
        content = content.replace(old, new)
    path.write_bytes(content)
    return path


def test_tags_of_matroska_that_cannot_be_are_passed_over(tmp_path):
    path = make(tmp_path / "a.mkv")
    for tag in (b"some time ", b"00:00:01.0", b"99:99:99.9"[::-1]):
        copy = tmp_path / "copy.mkv"
        copy.write_bytes(path.read_bytes())
        rewrite(copy, (b"00:00:06.0", tag), (b"00:00:12.0", tag))
        seconds, is_of_pictures, _ = look(copy)
        assert not is_of_pictures
        assert seconds == pytest.approx(12, abs=0.1)


def test_statistics_of_mkvmerge_count_from_the_first_picture(tmp_path):
    named = ("-metadata:s:v", "_STATISTICS_WRITING_APP=mkvmerge")
    path = make(tmp_path / "a.mkv", *X264, *named, late=2)
    rewrite(path, (b"00:00:08.0", b"00:00:06.0"))
    assert look(path)[:2] == (8, True)


def test_a_header_may_say_nothing(tmp_path):
    assert look(make(tmp_path / "a.mkv", *X264, "-live", "1")) is None

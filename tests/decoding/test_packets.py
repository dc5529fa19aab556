"""What packets say of pictures."""

from __future__ import annotations

import pytest

from conftest import make_clip, run_ffmpeg
from decoding.hostile_videos import (
    make_avi_of_slow_frames,
    make_edits,
    make_late_pts,
    make_late_tag,
    make_still,
)
from videofeatures.decoding.packets import look_at_packets
from videofeatures.errors import VideoError


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.ts", "a.flv", "a.mpg"])
def test_an_ordinary_video_is_as_long_as_it_says(tmp_path, name):
    codec = ("-c:v", {"a.flv": "flv1"}.get(name, "mpeg2video"))
    found = look_at_packets(str(make_clip(tmp_path / name, seconds=4, codec=codec)))
    assert found.num_packets == 100
    assert found.steady_seconds == pytest.approx(4, abs=0.01)
    assert found.span_seconds == pytest.approx(4, abs=0.1)
    assert found.longest_seconds < 0.2
    assert found.has_promise is (name not in ("a.ts", "a.mpg"))
    assert not found.is_encrypted


def test_a_picture_that_stands_still(tmp_path):
    found = look_at_packets(str(make_still(tmp_path / "a.mkv", 1200)))
    assert found.longest_seconds == pytest.approx(1200, abs=1)
    assert found.span_seconds == pytest.approx(1204, abs=1)
    assert found.steady_seconds == pytest.approx(4, abs=0.1)


def test_a_first_picture_that_comes_late_stands_from_the_start(tmp_path):
    video = make_clip(tmp_path / "a.mp4", seconds=4)
    late = tmp_path / "late.mkv"
    sound = ("-f", "lavfi", "-i", "sine=d=70")
    run_ffmpeg(*sound, "-itsoffset", "60", "-i", video, "-map", "0", "-map", "1", late)
    found = look_at_packets(str(late))
    assert (round(found.longest_seconds), round(found.span_seconds)) == (60, 64)


def test_packets_that_are_read_again_count_once(tmp_path):
    path = make_edits(tmp_path / "a.mp4", 5000)
    assert 100 <= look_at_packets(str(path)).num_packets <= 200


def test_an_avi_has_a_second_header(tmp_path):
    found = look_at_packets(str(make_avi_of_slow_frames(tmp_path / "a.avi", 20)))
    assert (found.avi_seconds, found.steady_seconds) == (4, 4)
    assert found.longest_seconds == 20


def test_times_that_are_far_off(tmp_path):
    found = look_at_packets(str(make_late_tag(tmp_path / "a.flv", 62)))
    assert (round(found.span_seconds), round(found.steady_seconds)) == (66, 4)
    # Where times may jump, those at which packets are decoded tell the length.
    found = look_at_packets(str(make_late_pts(tmp_path / "a.ts", 62)))
    assert (round(found.span_seconds), round(found.longest_seconds)) == (4, 0)


def test_a_file_without_pictures(tmp_path):
    run_ffmpeg("-f", "lavfi", "-i", "sine=d=1", tmp_path / "a.mp4")
    with pytest.raises(VideoError, match=r"^no video stream$"):
        look_at_packets(str(tmp_path / "a.mp4"))


def test_packets_of_which_an_edit_list_cuts_the_pictures_off_are_counted(tmp_path):
    codec = ("-c:v", "libx264", "-g", "50", "-pix_fmt", "yuv420p")
    whole = make_clip(tmp_path / "whole.mp4", seconds=4, codec=codec)
    run_ffmpeg("-ss", "1", "-i", whole, "-c", "copy", tmp_path / "a.mp4")
    found = look_at_packets(str(tmp_path / "a.mp4"))
    assert (found.num_packets, found.num_discarded) == (100, 25)
    assert look_at_packets(str(whole)).num_discarded == 0


def test_each_packet_is_a_sign_of_life(tmp_path):
    packets: list[None] = []
    path = str(make_clip(tmp_path / "a.mkv", seconds=10))
    look_at_packets(path, on_packet=lambda: packets.append(None))
    assert len(packets) >= 250


def test_where_it_ends_is_said_of_pictures_of_sound_and_of_a_part(tmp_path):
    codec = ("-c:v", "libx264", "-g", "25", "-bf", "0")
    film = make_clip(tmp_path / "film.mp4", seconds=4, codec=codec)
    path = tmp_path / "a.mkv"
    run_ffmpeg("-i", film, "-f", "lavfi", "-i", "sine=d=7", "-c:v", "copy", path)
    found = look_at_packets(str(path))
    assert found.is_promise_of_pictures
    assert found.promised_seconds == pytest.approx(4, abs=0.05)
    assert found.picture_end_seconds == pytest.approx(4, abs=0.05)
    assert found.end_seconds == pytest.approx(7, abs=0.1)
    assert found.last_begin_seconds == pytest.approx(3.96, abs=0.01)
    assert found.last_key_seconds == pytest.approx(3, abs=0.01)
    part = look_at_packets(str(path), end_seconds=2.5)
    assert part.last_begin_seconds == pytest.approx(2.48, abs=0.01)
    assert part.last_key_seconds == pytest.approx(2, abs=0.01)
    assert (part.picture_end_seconds, part.num_packets) == (found.picture_end_seconds, 100)


def test_an_end_that_is_read_again_and_again_is_not_known(tmp_path):
    assert look_at_packets(str(make_edits(tmp_path / "a.mp4", 5000))).end_seconds is None
    few = look_at_packets(str(make_edits(tmp_path / "b.mp4", 3)))
    assert few.end_seconds > 4

"""Small pictures, and the frames of a video that they show."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from conftest import make_clip, run_ffmpeg
from videofeatures.errors import VideoError
from videofeatures.report.thumbnails import (
    CAPTION_HEIGHT,
    SHEET_HEIGHT,
    contact_sheet,
    data_url,
    frames_at,
    middle_frame,
    thumbnail,
)


@pytest.mark.parametrize("name", ["upright", "turned"])
def test_a_peek_shows_the_frame_of_its_time(tmp_path, name):
    # Red for the first 5 s, then green, then, from 10 s on, blue; the left half is black.
    colours = "".join(
        f"color=c={colour}:s=160x120:r=10:d=5,drawbox=w=80:h=120:t=fill:c=black[{k}];"
        for k, colour in enumerate(("red", "lime", "blue"))
    )
    clip = tmp_path / "upright.mp4"
    run_ffmpeg(
        *("-filter_complex", f"{colours}[0][1][2]concat=n=3[out]", "-map", "[out]"),
        *("-c:v", "libx264", "-g", "30", "-pix_fmt", "yuv444p", clip),
    )
    if name == "turned":
        run_ffmpeg("-display_rotation", "90", "-i", clip, "-c", "copy", tmp_path / "turned.mp4")
        clip = tmp_path / "turned.mp4"
    times = [0, 4.95, 5.05, 9, 12, 100]
    pictures = frames_at(str(clip), times, height=60)
    assert all(picture is not None for picture in pictures)
    arrays = [np.asarray(picture) for picture in pictures]
    # To be shown turned left, the black left half goes to the bottom.
    bright = [a[:25] if name == "turned" else a[:, 45:] for a in arrays]
    dark = [a[35:] if name == "turned" else a[:, :35] for a in arrays]
    assert [int(b.mean(axis=(0, 1)).argmax()) for b in bright] == [0, 0, 1, 1, 2, 2]
    assert max(d.mean() for d in dark) < 20
    assert {a.shape[:2] for a in arrays} == {(60, 45) if name == "turned" else (60, 80)}


def test_a_peek_into_what_has_no_picture_shows_none(tmp_path):
    run_ffmpeg("-f", "lavfi", "-i", "sine=d=1", tmp_path / "sound.mp4")
    assert frames_at(str(tmp_path / "sound.mp4"), [0, 0.5], height=60) == [None, None]
    with pytest.raises(VideoError, match="no such file"):
        frames_at(str(tmp_path / "gone.mp4"), [0], height=60)


def test_a_peek_shows_proportions_as_they_are_meant(tmp_path):
    codec = ("-vf", "setsar=2", "-c:v", "libx264", "-pix_fmt", "yuv420p")
    clip = make_clip(tmp_path / "wide.mp4", size="120x120", codec=codec)
    (picture,) = frames_at(str(clip), [0.5], height=60)
    assert picture.size == (120, 60)


RED = np.zeros((40, 80, 3), np.uint8) + np.array([255, 0, 0], np.uint8)


def test_the_middle_frame_stands_for_a_clip():
    clip = np.arange(5, dtype=np.uint8)[:, None, None, None] + np.zeros((5, 4, 6, 3), np.uint8)
    np.testing.assert_array_equal(middle_frame(clip), clip[2])
    np.testing.assert_array_equal(middle_frame(clip[1]), clip[1])


@pytest.mark.parametrize(("height", "size"), [(20, (40, 20)), (80, (160, 80)), (1, (2, 1))])
def test_a_thumbnail_keeps_the_proportions_of_its_frame(height, size):
    picture = thumbnail(RED, height)
    assert picture.size == size
    assert picture.getpixel((0, 0)) == (255, 0, 0)


def test_a_thumbnail_of_a_very_tall_frame_can_be_seen():
    assert thumbnail(np.zeros((500, 2, 3), np.uint8), 20).size == (1, 20)


def test_a_page_can_hold_a_picture():
    kind, content = data_url(thumbnail(RED, 20)).split(",")
    assert kind == "data:image/jpeg;base64"
    picture = Image.open(io.BytesIO(base64.b64decode(content)))
    assert (picture.format, picture.size) == ("JPEG", (40, 20))
    assert np.abs(np.array(picture.getpixel((20, 10))) - [255, 0, 0]).max() < 10


def test_a_contact_sheet_has_frames_and_clips_side_by_side():
    green = np.roll(RED, 1, axis=2)
    sheet = contact_sheet([RED, np.stack([RED, green, RED])], [])
    width = 2 * SHEET_HEIGHT
    assert sheet.size == (2 * width, SHEET_HEIGHT)
    assert sheet.getpixel((width - 1, 0)) == (255, 0, 0)
    assert sheet.getpixel((width, 0)) == (0, 255, 0)


def test_a_caption_stands_below_its_own_frame_however_long_it_is():
    sheet = contact_sheet([RED, RED], ["a caption that is longer than its frame " * 9, ""])
    width = 2 * SHEET_HEIGHT
    assert sheet.size == (2 * width, SHEET_HEIGHT + CAPTION_HEIGHT)
    captions = np.asarray(sheet)[SHEET_HEIGHT:]
    assert captions[:, :width].min() < 50
    assert captions[:, width:].min() == 255


def test_the_beginning_of_a_short_stream_is_shown(tmp_path):
    """libav cannot seek in one whose only key frame is the first."""
    path = make_clip(tmp_path / "a.ts", seconds=4)
    first, third = frames_at(str(path), [0.5, 2.5], height=48)
    assert first.tobytes() != third.tobytes()

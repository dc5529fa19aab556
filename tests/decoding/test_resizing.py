"""Frames resized by Pillow are those of Pillow on ffmpeg's whole frames."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import run_ffmpeg
from decoding.drawn_videos import corners, make_corners
from decoding.one_view import iter_frames
from videofeatures.decoding.decoding import Decoding
from videofeatures.decoding.ffmpeg_decoder import FfmpegDecoder
from videofeatures.decoding.frames import resized_size
from videofeatures.decoding.probe import probe_video
from videofeatures.decoding.resizing import Resizing
from videofeatures.decoding.view import View
from videofeatures.settings import Settings
from videofeatures.source import Source

RESAMPLING = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "area": Image.Resampling.BOX,
}


def view(**options: object) -> View:
    return View(
        **{"frame_rate": 1, "resize_size": 64, "crop_size": 0, "resizer": "pillow"} | options
    )


def decode(path: Path, seen: View) -> list[np.ndarray]:
    with FfmpegDecoder(Settings()) as decoder:
        return list(Decoding(decoder, Source(str(path)), seen).clips())


def check_like_pillow(path: Path, seen: View) -> None:
    """Compare with what Pillow makes of ffmpeg's whole frames, as networks' libraries use it."""
    metadata = probe_video(str(path))
    whole = (metadata.width, metadata.height)
    width, height = resized_size(metadata, seen)
    expected = []
    for frame in iter_frames(str(path), Resizing(size=whole), frame_rate=seen.frame_rate):
        picture = Image.fromarray(frame)
        assert picture.size == whole
        picture = picture.resize((width, height), RESAMPLING[seen.interpolation])
        if crop := seen.crop_size:
            left, top = round((width - crop) / 2.0), round((height - crop) / 2.0)
            picture = picture.crop((left, top, left + crop, top + crop))
        expected.append(np.asarray(picture))
    found = decode(path, seen)
    assert len(found) == len(expected) > 0
    for frame, other in zip(found, expected, strict=True):
        assert frame.flags.writeable
        np.testing.assert_array_equal(frame, other)


@pytest.mark.parametrize("interpolation", RESAMPLING)
def test_real_videos(real_clips, interpolation):
    for path in real_clips.values():
        check_like_pillow(path, view(interpolation=interpolation, resize_size=75))


@pytest.mark.parametrize("resize_mode", ["shortest", "squash"])
@pytest.mark.parametrize("size", ["321x181", "180x320", "320x240", "63x65", "64x64"])
def test_odd_sizes_and_crops(tmp_path, size, resize_mode):
    path = tmp_path / "a.mkv"
    run_ffmpeg("-f", "lavfi", "-i", f"testsrc2=s={size}:d=2:r=5", "-c:v", "ffv1", path)
    cropped = view(
        crop_size=51, crop_rounding="nearest", resize_mode=resize_mode, interpolation="bicubic"
    )
    check_like_pillow(path, cropped)


@pytest.mark.parametrize("square_pixels", [True, False])
def test_anamorphic_and_rotated_videos(tmp_path, square_pixels):
    wide = make_corners(tmp_path / "wide.mkv", size="160x120", sar="16/9")
    turned = tmp_path / "turned.mp4"
    flat = tmp_path / "flat.mp4"
    make_corners(flat, "-c:v", "libx264", "-pix_fmt", "yuv420p", size="160x120")
    run_ffmpeg("-display_rotation", "90", "-i", flat, "-c", "copy", turned)
    sizes = {}
    for path in (wide, turned):
        seen = view(square_pixels=square_pixels)
        check_like_pillow(path, seen)
        frame = decode(path, seen)[0]
        sizes[path.stem] = frame.shape[1::-1]
    assert sizes == {"wide": (151, 64) if square_pixels else (85, 64), "turned": (64, 85)}
    assert corners(decode(wide, view())[0]) == ["red", "lime", "blue", "black"]


def test_both_resizers_squash(tmp_path):
    path = make_corners(tmp_path / "a.mkv")
    for resizer in ("ffmpeg", "pillow"):
        (frame, _) = decode(path, view(resize_mode="squash", resizer=resizer))
        assert frame.shape == (64, 64, 3)
        assert corners(frame) == ["red", "lime", "blue", "black"]


def test_frames_of_another_size_in_mid_stream_become_those_of_the_first(tmp_path):
    for size in ("64x48", "96x80"):
        source = f"color=red:s={size}:d=1:r=5"
        run_ffmpeg("-f", "lavfi", "-i", source, "-c:v", "libx264", tmp_path / f"{size}.ts")
    path = tmp_path / "both.ts"
    path.write_bytes(b"".join((tmp_path / f"{s}.ts").read_bytes() for s in ("64x48", "96x80")))
    frames = decode(path, view(frame_rate="native"))
    assert [frame.shape for frame in frames] == [(64, 85, 3)] * 10
    assert all((frame[..., 0] > 200).all() and (frame[..., 1] < 60).all() for frame in frames)


@pytest.mark.parametrize(
    ("side", "rounding", "expected"),
    [
        *[(100 + k, "down", 25 + k // 2) for k in range(4)],
        (100, "nearest", 25),
        (101, "nearest", 26),  # 25.5
        (103, "nearest", 26),  # 26.5
        (105, "nearest", 28),  # 27.5
    ],
)
@pytest.mark.parametrize("whole_size", [None, (300, 200)])
def test_where_half_a_pixel_goes(tmp_path, side, rounding, expected, whole_size):
    # Columns tell x and rows tell y, so that the crop's place can be read off its pixels.
    source = f"color=black:s={side}x{side}:r=5:d=1,format=gbrp,geq=r=X:g=Y:b=0"
    path = tmp_path / "a.mkv"
    run_ffmpeg("-f", "lavfi", "-i", source, "-c:v", "ffv1", "-pix_fmt", "gbrp", path)
    options = {"crop_size": 50, "crop_rounding": rounding}
    if whole_size is not None:
        options["whole_size"] = (side, side)
    frame = next(iter_frames(str(path), Resizing(size=(side, side), **options), frame_rate=5))
    assert (frame[0, 0, 0], frame[0, 0, 1]) == (expected, expected)


def test_ffmpeg_sends_what_its_reader_expects():
    for crop_size, whole_size in itertools.product((0, 20), (None, (99, 55))):
        resizing = Resizing(size=(50, 30), crop_size=crop_size, whole_size=whole_size)
        width, height = resizing.sent_size
        finished = resizing.finish(np.zeros((height, width, 3), np.uint8))
        assert finished.shape == ((20, 20, 3) if crop_size else (30, 50, 3))

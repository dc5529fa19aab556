"""The right frames, the right way up, in the right colours."""

from __future__ import annotations

import os
import subprocess
import tracemalloc
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from conftest import make_clip, run_ffmpeg
from videofeatures.decoding import frames as video
from videofeatures.decoding.frames import iter_frames
from videofeatures.decoding.probe import VideoMetadata, probe_video, resized_size
from videofeatures.errors import VideoError

LOSSLESS = ("-c:v", "ffv1", "-pix_fmt", "yuv444p")


def make_numbered(path: Path, *, num_frames: int, rate: int) -> Path:
    """A lossless clip in which frame n has luma 16 + 2 n."""
    source = f"color=black:s=64x48:r={rate}:d={num_frames / rate},geq=lum=16+2*N:cb=128:cr=128"
    run_ffmpeg("-f", "lavfi", "-i", source, *LOSSLESS, path)
    return path


def numbers(frames) -> list[int]:
    """Which frames of `make_numbered` these are."""
    return [round(float(frame.mean()) * 219 / 255 / 2) for frame in frames]


def make_corners(path: Path, *options: str, size: str = "320x240", sar: str = "1") -> Path:
    """A clip: red at the top left, green at the top right, blue at the bottom, on black."""
    width, height = map(int, size.split("x"))
    w, h = width // 4, height // 4
    boxes = [("red", 0, 0), ("lime", width - w, 0), ("blue", 0, height - h)]
    drawn = ",".join(f"drawbox={x}:{y}:{w}:{h}:{colour}:fill" for colour, x, y in boxes)
    source = f"color=black:s={size}:r=5:d=2,format=rgb24,{drawn},setsar={sar}"
    run_ffmpeg("-f", "lavfi", "-i", source, *LOSSLESS, *options, path)
    return path


def colour_at(frame: np.ndarray, x: float, y: float) -> str:
    """Name of the colour at a place, given in parts of width and height."""
    height, width, _ = frame.shape
    pixel = frame[int(y * (height - 1)), int(x * (width - 1))]
    names = {(1, 0, 0): "red", (0, 1, 0): "lime", (0, 0, 1): "blue", (0, 0, 0): "black"}
    return names[tuple((pixel > 127).astype(int).tolist())]


def corners(frame: np.ndarray) -> list[str]:
    """Colours at the top left, top right, bottom left and bottom right."""
    near, far = 0.05, 0.95
    return [colour_at(frame, x, y) for y in (near, far) for x in (near, far)]


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
    assert resized_size(metadata, resize_size, square_pixels=True) == expected


def test_pixels_can_be_taken_for_square_as_in_the_original():
    metadata = VideoMetadata(720, 576, Fraction(64, 45), 1.0, 25.0, "h264")
    assert resized_size(metadata, 224, square_pixels=False) == (280, 224)


def test_facts_of_a_real_clip(real_clips):
    found = probe_video(str(real_clips["carphone_pristine"]))
    assert (found.width, found.height) == (176, 144)
    assert found.sample_aspect_ratio == Fraction(128, 117)
    assert found.duration_seconds == pytest.approx(4.004)
    assert found.average_fps == pytest.approx(29.97, abs=0.001)
    assert found.codec == "h264"


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
    assert numbers(iter_frames(str(path), (64, 48), frame_rate=frame_rate)) == expected


def test_a_still_image_gives_its_picture_once(tmp_path):
    path = make_corners(tmp_path / "a.png", "-frames:v", "1", "-c:v", "png")
    (frame,) = iter_frames(str(path), (320, 240), frame_rate=1)
    assert corners(frame) == ["red", "lime", "blue", "black"]


def test_frames_are_uint8_rgb_of_the_size_asked_for(tmp_path):
    path = make_corners(tmp_path / "a.mkv")
    frames = list(iter_frames(str(path), (298, 224), frame_rate=1))
    assert [(frame.shape, frame.dtype) for frame in frames] == [((224, 298, 3), np.uint8)] * 2
    assert all(corners(frame) == ["red", "lime", "blue", "black"] for frame in frames)


@pytest.mark.parametrize(
    ("degrees", "upright"),
    [
        # ffmpeg's option turns counter-clockwise.
        (90, ["lime", "black", "red", "blue"]),
        (180, ["black", "blue", "lime", "red"]),
        (270, ["blue", "red", "black", "lime"]),
    ],
)
def test_rotated_videos_come_out_upright_and_in_proportion(tmp_path, degrees, upright):
    plain = make_corners(tmp_path / "plain.mp4", "-c:v", "libx264", "-pix_fmt", "yuv444p")
    path = tmp_path / "rotated.mp4"
    run_ffmpeg("-display_rotation", degrees, "-i", plain, "-c", "copy", path)
    metadata = probe_video(str(path))
    turned = degrees != 180
    assert (metadata.width, metadata.height) == ((240, 320) if turned else (320, 240))
    size = resized_size(metadata, 224, square_pixels=True)
    assert size == ((224, 298) if turned else (298, 224))
    frame = next(iter_frames(str(path), size, frame_rate=1))
    assert corners(frame) == upright
    # In proportion: each box is a quarter of its side.
    height, width, _ = frame.shape
    box = (frame > 127).any(axis=2)
    assert box[: height // 4 - 3].any(axis=1).all()
    assert not box[height // 2].any()
    assert not box[:, width // 2].any()


def test_anamorphic_videos_get_their_proportions(tmp_path):
    path = make_corners(tmp_path / "a.mkv", sar="4/3")
    metadata = probe_video(str(path))
    assert resized_size(metadata, 240, square_pixels=True) == (426, 240)
    assert resized_size(metadata, 240, square_pixels=False) == (320, 240)


def test_rotation_turns_the_shape_of_pixels_too(tmp_path):
    plain = make_corners(tmp_path / "p.mp4", "-c:v", "libx264", "-pix_fmt", "yuv444p", sar="2")
    path = tmp_path / "rotated.mp4"
    run_ffmpeg("-display_rotation", 90, "-i", plain, "-c", "copy", path)
    metadata = probe_video(str(path))
    assert metadata.sample_aspect_ratio == Fraction(1, 2)
    assert resized_size(metadata, 100, square_pixels=True) == (100, 266)


@pytest.mark.parametrize("size", ["320x240", "240x320", "202x150", "398x112"])
def test_the_crop_is_the_centre(tmp_path, size):
    width, height = map(int, size.split("x"))
    # Columns tell x and rows tell y, so that the crop's place can be read off its pixels.
    source = f"color=black:s={size}:r=5:d=1,format=gbrp,geq=r=X/2:g=Y/2:b=0"
    path = tmp_path / "a.mkv"
    run_ffmpeg("-f", "lavfi", "-i", source, "-c:v", "ffv1", "-pix_fmt", "gbrp", path)
    frame = next(iter_frames(str(path), (width, height), frame_rate=5, crop_size=112))
    x, y = int((width - 112) / 2), int((height - 112) / 2)
    assert frame.shape == (112, 112, 3)
    np.testing.assert_allclose(frame[0, :, 0], (x + np.arange(112)) // 2, atol=1)
    np.testing.assert_allclose(frame[:, 0, 1], (y + np.arange(112)) // 2, atol=1)


def test_the_scaler_does_what_it_is_asked(real_clips):
    path = str(real_clips["bikes"])
    frames = {
        how: next(iter_frames(path, (527, 224), frame_rate=1, interpolation=how))
        for how in ("bilinear", "bicubic", "area", "lanczos")
    }
    sharpness = {
        how: np.abs(np.diff(frame.astype(int), axis=1)).mean() for how, frame in frames.items()
    }
    assert len({frame.tobytes() for frame in frames.values()}) == 4
    assert sharpness["bilinear"] < sharpness["bicubic"] < sharpness["lanczos"]


def test_decoding_on_a_device_is_asked_of_ffmpeg(real_clips):
    path = str(real_clips["bikes"])
    plain, auto = (
        list(iter_frames(path, (527, 224), frame_rate=1, hwaccel=device))
        for device in ("none", "auto")
    )
    # Where there is no device, or no library for it, `auto` is the CPU; one may differ by rounding.
    np.testing.assert_allclose(np.stack(auto).astype(int), np.stack(plain), atol=3)
    with pytest.raises(VideoError, match="nonsense"):
        list(iter_frames(path, (527, 224), frame_rate=1, hwaccel="nonsense"))


def test_a_device_is_taken_that_ffmpeg_can_use(tmp_path, monkeypatch):
    """With a stand-in for ffmpeg, which is aborted by one kind, and finds another."""
    ffmpeg = tmp_path / "ffmpeg"
    ffmpeg.write_text(
        '#!/bin/sh\ncase "$*" in\n'
        '*"-init_hw_device cuda "*) exit 1;;\n'
        '*"-init_hw_device vaapi "*) kill -ABRT $$;;\n'
        '*"-init_hw_device qsv "*"nullsrc"*) exit 0;;\n'
        "esac\nexit 2\n"
    )
    ffmpeg.chmod(0o755)
    monkeypatch.setattr(video.imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(ffmpeg))
    find = video.find_hwaccel.__wrapped__  # without what was found before
    assert find() == "qsv"
    ffmpeg.write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(video, "HWACCEL_TIMEOUT_SECONDS", 0.1)
    assert find() == "none"


def test_frames_are_those_of_a_plain_ffmpeg_command(real_clips):
    import imageio_ffmpeg

    for path in real_clips.values():
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", path, "-filter_complex"]
        chain = "fps=1,scale=398:224:flags=bilinear"
        output = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
        raw = subprocess.run([*command, chain, *output], capture_output=True, check=True).stdout
        expected = np.frombuffer(raw, np.uint8).reshape(-1, 224, 398, 3)
        found = np.stack(list(iter_frames(str(path), (398, 224), frame_rate=1)))
        np.testing.assert_array_equal(found, expected)


def test_a_video_stream_that_starts_late_repeats_its_first_sample(tmp_path):
    late = tmp_path / "late.mkv"
    make_numbered(tmp_path / "a.mkv", num_frames=100, rate=25)
    sound = ("-f", "lavfi", "-i", "sine=d=6")
    run_ffmpeg(*sound, "-itsoffset", "2", "-i", tmp_path / "a.mkv", "-c:v", "copy", late)
    assert numbers(iter_frames(str(late), (64, 48), frame_rate=1)) == [12, 12, 12, 37, 62, 87]


def test_cover_art_is_no_video(tmp_path):
    cover, music = tmp_path / "cover.png", tmp_path / "music.mp4"
    make_corners(cover, "-frames:v", "1", "-c:v", "png")
    sound = ("-f", "lavfi", "-i", "sine=d=1")
    run_ffmpeg(
        *sound,
        "-i",
        cover,
        "-map",
        "0",
        "-map",
        "1",
        "-c:v",
        "copy",
        *("-disposition:v", "attached_pic"),
        music,
    )
    with pytest.raises(VideoError, match="no video stream"):
        probe_video(str(music))


@pytest.mark.parametrize(
    "name",
    ["-v.mkv", "a:b.mkv", "%03d.mkv", "http:.mkv", "é 日本 {x} '$;*?[a].mkv", 'a,b\\c"d.mkv'],
)
def test_paths_are_taken_literally(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    make_numbered(Path("a.mkv"), num_frames=25, rate=25).rename(name)
    assert probe_video(name).width == 64
    assert numbers(iter_frames(name, (64, 48), frame_rate=1)) == [12]


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(VideoError, match="no such file"):
        probe_video(str(tmp_path / "nothing.mp4"))
    with pytest.raises(VideoError, match="is a folder"):
        probe_video(str(tmp_path))
    text = tmp_path / "text.mp4"
    text.write_text("not a video")
    with pytest.raises(VideoError, match="Invalid data"):
        probe_video(str(text))


def test_a_failure_of_ffmpeg_is_not_taken_for_the_end(tmp_path):
    path = make_clip(tmp_path / "a.mp4")
    with pytest.raises(VideoError, match=r"ffmpeg failed: .*nonsense"):
        list(iter_frames(str(path), (320, 240), frame_rate=1, interpolation="nonsense"))


def test_ffmpeg_ends_when_nobody_wants_more_frames(tmp_path):
    path = make_clip(tmp_path / "a.mp4", seconds=60)
    frames = iter_frames(str(path), (320, 240), frame_rate=25)
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
        count = sum(1 for _ in iter_frames(str(path), (640, 480), frame_rate=25))
        peak_mb = tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()
    assert count == 1500
    assert 0.9 < peak_mb < 10  # one frame, at least, is 0.9 MB

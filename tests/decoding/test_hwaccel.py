"""Decoding on a device: the CPU's frames, and the CPU where that cannot be."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import threading
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from conftest import make_clip, run_ffmpeg
from decoding.one_view import iter_frames
from software_device import has_vulkan, make_software_device
from videofeatures.decoding import hwaccel
from videofeatures.decoding.decoder import Damage, VideoMetadata
from videofeatures.decoding.ffmpeg_decoder import FfmpegDecoder
from videofeatures.decoding.hwaccel import Accelerator, Device, find_device, find_turns
from videofeatures.decoding.resizing import Resizing
from videofeatures.decoding.tally import Tally
from videofeatures.decoding.told import Told
from videofeatures.decoding.view import View
from videofeatures.errors import UserError, VideoError
from videofeatures.settings import Settings
from videofeatures.source import Source

X264 = ("-c:v", "libx264", "-preset", "ultrafast")
METADATA = VideoMetadata(320, 240, Fraction(1), 4.0, 25.0, "h264", "yuv420p")

CLIPS: dict[str, tuple[str, tuple[str, ...]]] = {
    "h264": ("320x240", (*X264, "-pix_fmt", "yuv420p", "-bf", "2")),
    "h264_10_bits": ("320x240", (*X264, "-pix_fmt", "yuv420p10le")),
    "full_range": ("320x240", (*X264, "-pix_fmt", "yuvj420p", "-color_range", "pc")),
    "bt709": ("320x240", (*X264, "-pix_fmt", "yuv420p", "-colorspace", "bt709")),
    "bt601": ("320x240", (*X264, "-pix_fmt", "yuv420p", "-colorspace", "smpte170m")),
    "full_bt709_10_bits": (
        "320x240",
        (*X264, "-pix_fmt", "yuv420p10le", "-colorspace", "bt709", "-color_range", "pc"),
    ),
    "bt2020": ("320x240", (*X264, "-pix_fmt", "yuv420p10le", "-colorspace", "bt2020nc")),
    "interlaced": ("320x240", (*X264, "-pix_fmt", "yuv420p", "-flags", "+ildct+ilme")),
    "chroma_top_left": (
        "320x240",
        (*X264, "-pix_fmt", "yuv420p", "-chroma_sample_location", "topleft"),
    ),
    "cropped": ("318x234", (*X264, "-pix_fmt", "yuv420p")),  # of 320×240 that are coded
    "hevc": ("320x240", ("-c:v", "libx265", "-pix_fmt", "yuv420p", "-x265-params", "log-level=0")),
    "vp9_odd": ("321x241", ("-c:v", "libvpx-vp9", "-pix_fmt", "yuv420p", "-cpu-used", "8")),
    "vp8_odd": ("161x121", ("-c:v", "libvpx", "-pix_fmt", "yuv420p", "-cpu-used", "8")),
    "av1": ("320x240", ("-c:v", "libsvtav1", "-pix_fmt", "yuv420p", "-preset", "12")),
}
"""Size and encoder of clips that a device decodes."""

VIEWS = {
    "one a second": View(frame_rate=1, resize_size=64, crop_size=0),
    "more than there are": View(frame_rate=60, resize_size=64, crop_size=32),
    "native": View(frame_rate="native", resize_size=64, crop_size=0),
    "every third": View(frame_rate="native", frame_interval=3, resize_size=64, crop_size=0),
    "spread": View(frame_rate=1, num_frames=5, resize_size=64, crop_size=0),
    "key frames": View(frame_rate="native", keyframes_only=True, resize_size=64, crop_size=0),
    "by Pillow": View(frame_rate=2, resize_size=64, crop_size=0, resizer="pillow"),
    "bicubic": View(frame_rate=2, resize_size=64, crop_size=0, interpolation="bicubic"),
    "area": View(frame_rate=2, resize_size=64, crop_size=0, interpolation="area"),
    "lanczos": View(frame_rate=2, resize_size=64, crop_size=0, interpolation="lanczos"),
    "enlarged": View(frame_rate=2, resize_size=300, crop_size=0),
}

ROTATIONS = [
    (*angle, *flips)
    for angle in ((), ("-display_rotation", "90"), ("-display_rotation", "180"))
    for flips in ((), ("-display_hflip",), ("-display_vflip",))
] + [("-display_rotation", "270")]


@pytest.fixture(scope="session")
def clips(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("clips")
    return {
        name: make_clip(folder / f"{name}.mkv", seconds=2, size=size, codec=codec)
        for name, (size, codec) in CLIPS.items()
    }


@pytest.fixture(params=["memory", "vulkan"])
def software_device(request, tmp_path, monkeypatch) -> Path:
    """ffmpeg as if it had a device; the folder in which it was made."""
    is_vulkan = request.param == "vulkan"
    if is_vulkan and not has_vulkan():
        pytest.skip("ffmpeg finds no Vulkan here: Mesa's lavapipe is enough of it")
    path = make_software_device(tmp_path, is_vulkan=is_vulkan)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(path))
    return tmp_path


def decode(
    path: str | Path, view: View, accelerator: Accelerator, **part: float
) -> tuple[list[np.ndarray], Damage, deque[str]]:
    """All frames of a video, what decoded it, and what ffmpeg said."""
    told = Told()
    source = Source(str(path), **part)
    with FfmpegDecoder(Settings(), accelerator=accelerator) as decoder:
        metadata = decoder.probe(source)
        frames = [frame for _, frame in decoder.frames(source, metadata, [view], [told])]
    return frames, told.damage, told.messages


def compare(path: str | Path, view: View, **part: float) -> None:
    """A device's frames are the CPU's, byte for byte."""
    expected, plain, _ = decode(path, view, Accelerator(), **part)
    frames, damage, messages = decode(path, view, Accelerator("cuda", index=0), **part)
    assert (damage.decoded_on, damage.fallback, list(messages)) == ("cuda", "", [])
    if not part:  # where ffmpeg ends before the video, it is ahead by more or less
        assert damage.num_frames == plain.num_frames
    assert plain.decoded_on == plain.fallback == ""
    assert expected
    np.testing.assert_array_equal(np.stack(frames), np.stack(expected))


@pytest.mark.parametrize("name", CLIPS)
def test_frames_of_a_device_are_the_cpu_s(software_device, clips, name):
    compare(clips[name], VIEWS["by Pillow"])  # of whole pictures, as they are


@pytest.mark.parametrize("view", VIEWS.values(), ids=list(VIEWS))
def test_whatever_is_made_of_them(software_device, clips, view):
    compare(clips["h264"], view)


def test_parts_of_videos_too(software_device, clips):
    for view in (VIEWS["one a second"], VIEWS["native"]):
        compare(clips["h264"], view, start_seconds=0.52, end_seconds=1.6)
        compare(clips["h264"], view, start_seconds=0.53, end_seconds=0.54)  # between two frames


@pytest.mark.parametrize("rotation", ROTATIONS, ids=" ".join)
def test_they_are_turned_as_ffmpeg_turns_its_own(software_device, clips, tmp_path, rotation):
    turned = tmp_path / "turned.mp4"
    run_ffmpeg(*rotation, "-i", clips["h264"], "-c", "copy", turned)
    compare(turned, VIEWS["by Pillow"])


def test_real_clips_too(software_device, real_clips):
    for path in real_clips.values():
        compare(path, VIEWS["one a second"])


def test_no_more_than_the_taken_frames_are_fetched(software_device, clips):
    decode(clips["h264"], VIEWS["one a second"], Accelerator("cuda", index=3))
    (asked,) = (software_device / "asked").read_text().splitlines()
    assert asked.index("fps=") < asked.index("hwdownload") < asked.index("format=nv12")
    assert asked.index("format=nv12") < asked.index("scale=")
    before_input = asked.partition(" -i ")[0]
    assert "-hwaccel cuda -hwaccel_device 3 -hwaccel_output_format cuda" in before_input
    assert "-noautorotate" in before_input


def test_a_device_is_known_by_the_names_of_ffmpeg():
    (vaapi, videotoolbox) = (
        Device(kind, None, "nv12", "yuv420p", (64, 48)).input_options()
        for kind in ("vaapi", "videotoolbox")
    )
    assert vaapi["hwaccel_output_format"] == "vaapi"
    assert "hwaccel_device" not in vaapi
    assert videotoolbox["hwaccel_output_format"] == "videotoolbox_vld"


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"codec": "mpeg4"}, "mpeg4 is not decoded on a device"),
        ({"pixel_format": "yuv422p"}, "pictures in yuv422p are not decoded on a device"),
        ({"pixel_format": None}, "pictures in None are not decoded on a device"),
        (
            {"display_matrix": (46341, 46341, 0, -46341, 46341, 0, 0, 0, 1 << 30)},
            "pictures that are turned by no quarter are not decoded on a device",
        ),
    ],
)
def test_what_a_device_may_have_otherwise_is_left_to_the_cpu(facts, reason):
    assert isinstance(find_device(METADATA, "cuda"), Device)
    assert find_device(dataclasses.replace(METADATA, **facts), "cuda") == reason


def test_a_matrix_that_says_nothing_turns_nothing():
    assert find_turns((0,) * 9) == find_turns(None) == ()
    assert find_turns((65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)) == ()


@pytest.mark.parametrize(
    "codec",
    [
        (*X264, "-pix_fmt", "yuv422p"),
        (*X264, "-pix_fmt", "yuv444p"),
        ("-c:v", "mpeg4"),
        ("-c:v", "mjpeg", "-pix_fmt", "yuvj420p"),
    ],
    ids=" ".join,
)
def test_a_video_that_no_device_can_be_trusted_with_is_counted(software_device, tmp_path, codec):
    path = make_clip(tmp_path / "a.mkv", codec=codec)
    frames, damage, _ = decode(path, VIEWS["one a second"], Accelerator("cuda"))
    assert len(frames) == 2
    assert damage.decoded_on == "cpu"
    assert damage.fallback.endswith("not decoded on a device")
    assert not (software_device / "asked").exists()


@pytest.mark.parametrize("view", ["one a second", "native", "spread", "by Pillow"])
@pytest.mark.parametrize("how", ["undecodable", "midway"])
def test_where_a_device_fails_the_cpu_goes_on(software_device, clips, tmp_path, how, view):
    path = tmp_path / f"{how}.mkv"
    path.symlink_to(clips["h264"])
    expected, plain, _ = decode(clips["h264"], VIEWS[view], Accelerator())
    frames, damage, messages = decode(path, VIEWS[view], Accelerator("cuda"))
    np.testing.assert_array_equal(np.stack(frames), np.stack(expected))
    reason = {"undecodable": "the device does not know this profile", "midway": "was lost"}[how]
    assert damage.decoded_on == "cpu"
    assert damage.fallback.startswith("cuda: ffmpeg failed: ")
    assert reason in damage.fallback
    # It was the device's failure: nothing is said of the video.
    assert list(messages) == []
    assert (damage.num_frames, damage.num_damaged_frames) == (plain.num_frames, 0)


@pytest.mark.skipif(not has_vulkan(), reason="ffmpeg finds no Vulkan here")
def test_a_true_device_decodes_or_the_cpu_does(clips):
    """With ffmpeg as it is: lavapipe knows frames, and no codec."""
    for view in (VIEWS["one a second"], VIEWS["spread"]):
        expected, *_ = decode(clips["h264"], view, Accelerator())
        frames, damage, messages = decode(clips["h264"], view, Accelerator("vulkan"))
        np.testing.assert_array_equal(np.stack(frames), np.stack(expected))
        assert bool(damage.fallback) is (damage.decoded_on == "cpu")
        assert list(messages) == []


def test_a_device_that_gives_more_than_there_is_fails_the_row(software_device, clips, tmp_path):
    path = tmp_path / "longer.mkv"
    path.symlink_to(clips["h264"])
    with pytest.raises(VideoError, match=r"lost, after 4 frames; and the CPU decodes 2$"):
        decode(path, VIEWS["one a second"], Accelerator("cuda"))


def test_a_picture_of_another_size_fails_on_a_device(software_device, clips):
    """On a device, nobody knows what is left of a picture that is not as the header says."""
    device = Device("cuda", None, "nv12", "yuv420p", (320, 238))
    with pytest.raises(VideoError, match="Invalid too big or non positive size"):
        list(iter_frames(str(clips["h264"]), Resizing(size=(85, 64)), frame_rate=1, device=device))


def test_a_change_of_size_is_the_cpu_s(software_device, tmp_path, request):
    if request.node.callspec.params["software_device"] == "memory":
        pytest.skip("the filter of the stand-in goes on with the size that it knows")
    small, large = (
        make_clip(tmp_path / f"{size}.ts", seconds=2, size=size) for size in ("160x120", "320x240")
    )
    path = tmp_path / "both.ts"
    path.write_bytes(small.read_bytes() + large.read_bytes())
    view = VIEWS["one a second"]
    expected, *_ = decode(path, view, Accelerator())
    frames, damage, _ = decode(path, view, Accelerator("cuda"))
    assert damage.decoded_on == "cpu"
    assert "Invalid too big or non positive size" in damage.fallback
    np.testing.assert_array_equal(np.stack(frames), np.stack(expected))


def test_a_failure_of_the_video_is_told_as_the_cpu_tells_it(software_device, tmp_path):
    path = tmp_path / "undecodable.mp4"
    path.write_bytes(b"no video")
    with pytest.raises(VideoError, match=r"Invalid data"):
        decode(path, VIEWS["one a second"], Accelerator("cuda"))


class Reads:
    """Stands in for ffmpeg: what it was asked to read on, and frames that are numbers."""

    def __init__(self, *, fails: bool = False):
        self.devices: list[str] = []
        self.fails = fails

    def __call__(self, *, device: Device | None) -> Iterator[tuple[int, np.ndarray]]:
        self.devices.append(device.kind if device else "cpu")
        yield 0, np.array(0)
        if device is not None and self.fails:
            raise VideoError("no luck")
        yield 0, np.array(1)


def frames_of(
    accelerator: Accelerator, read: Reads, metadata: VideoMetadata = METADATA
) -> tuple[Iterator[np.ndarray], Damage]:
    damage = Damage()
    frames = accelerator.frames(read, metadata, Tally(), deque(), damage)
    return (frame for _, frame in frames), damage


def test_a_device_gets_so_many_videos_at_a_time():
    read, accelerator = Reads(), Accelerator("cuda", num_videos=2)
    iterators = [frames_of(accelerator, read)[0] for _ in range(3)]
    for frames in iterators:
        next(frames)
    assert read.devices == ["cuda", "cuda", "cpu"]
    iterators[0].close()  # given up
    list(iterators[1])
    again = [frames_of(accelerator, read) for _ in range(3)]
    for frames, _ in again:
        next(frames)
    assert read.devices[3:] == ["cuda", "cuda", "cpu"]
    assert [damage.decoded_on for _, damage in again] == ["cuda", "cuda", "cpu"]
    assert not any(damage.fallback for _, damage in again)  # it is a split, and no failure


def test_a_place_on_the_device_is_free_again_after_a_failure():
    read, accelerator = Reads(fails=True), Accelerator("cuda", num_videos=1)
    for _ in range(3):
        frames, damage = frames_of(accelerator, read)
        assert [int(frame) for frame in frames] == [0, 1]
        assert damage.fallback == "cuda: no luck"
    assert read.devices == ["cuda", "cpu"] * 3


def test_side_by_side_small_videos_are_the_cpu_s():
    large = dataclasses.replace(METADATA, width=1280, height=720, duration_seconds=60.0)
    unknown = dataclasses.replace(large, duration_seconds=None)
    old = dataclasses.replace(large, codec="mpeg4")
    expected = {"large": "cuda", "small": "cpu", "unknown": "cuda", "old": "cpu"}
    for is_shared in (True, False):
        accelerator = Accelerator("cuda", num_videos=1, is_shared=is_shared)
        for name, metadata in zip(expected, (large, METADATA, unknown, old), strict=True):
            frames, damage = frames_of(accelerator, Reads(), metadata)
            list(frames)
            is_small = name == "small" and not is_shared
            assert damage.decoded_on == ("cuda" if is_small else expected[name])
            assert bool(damage.fallback) is (name == "old" and not is_shared)


def test_a_stop_is_no_failure_of_the_device():
    stopped = threading.Event()
    read = Reads(fails=True)
    frames, damage = frames_of(Accelerator("cuda", stopped=stopped), read)
    next(frames)
    stopped.set()
    with pytest.raises(VideoError, match="no luck"):
        next(frames)
    assert read.devices == ["cuda"]
    assert damage.fallback == ""


def test_several_threads_share_a_device():
    accelerator, barrier = Accelerator("cuda", num_videos=3), threading.Barrier(8)
    devices: list[str] = []

    def work() -> None:
        frames, damage = frames_of(accelerator, Reads())
        next(frames)
        barrier.wait(60)
        devices.append(damage.decoded_on)
        list(frames)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(devices) == ["cpu"] * 5 + ["cuda"] * 3


def make_ffmpeg(folder: Path, monkeypatch, script: str) -> None:
    path = folder / "ffmpeg"
    path.unlink(missing_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(path))


def test_a_device_is_taken_that_ffmpeg_can_use(tmp_path, monkeypatch):
    """With a stand-in for ffmpeg, which is aborted by one kind, and finds another."""
    make_ffmpeg(
        tmp_path,
        monkeypatch,
        'case "$*" in\n'
        '*"-hwaccel cuda "*) exit 1;;\n'
        '*"-hwaccel vaapi "*) kill -ABRT $$;;\n'
        '*"-hwaccel qsv "*"-i data:"*) exit 0;;\n'
        "esac\nexit 2",
    )
    find = hwaccel.find_hwaccel.__wrapped__  # without what was found before
    assert find() == "qsv"
    make_ffmpeg(tmp_path, monkeypatch, "exec sleep 60")
    monkeypatch.setattr(hwaccel, "TRIAL_TIMEOUT_SECONDS", 0.1)
    assert find() == "none"
    assert hwaccel.find_problem("cuda") == "no answer in 0.1 s"
    stopped = threading.Event()
    stopped.set()
    with pytest.raises(VideoError, match=r"^stopped$"):
        find(stopped)


def test_a_device_is_tried_by_decoding(software_device, caplog):
    caplog.set_level(logging.INFO)
    assert hwaccel.find_problem("cuda", 1) is None
    hwaccel.check_hwaccel("vaapi")
    asked = (software_device / "asked").read_text()
    assert "-hwaccel_device 1" in asked
    assert "hwdownload" in asked


def test_a_device_that_is_not_there_is_said_at_once(tmp_path, monkeypatch):
    make_ffmpeg(tmp_path, monkeypatch, "echo '[CUDA @ 0x1] Cannot load libcuda.so.1' >&2; exit 1")
    with pytest.raises(UserError, match=r"^hwaccel: cuda: .*: Cannot load libcuda.so.1\. Set `hw"):
        hwaccel.check_hwaccel("cuda")


def test_opening_takes_what_is_there(software_device):
    find = hwaccel.find_hwaccel
    find.cache_clear()
    try:
        accelerator = hwaccel.open_accelerator("auto", index=1)
        assert accelerator.kind == "cuda"
        assert hwaccel.open_accelerator("none").kind == "none"
    finally:
        find.cache_clear()


def test_numbers_of_devices_are_those_of_cuda():
    read = itertools.count()
    for kind, expected in (("cuda", 2), ("vaapi", None)):
        accelerator = hwaccel.open_accelerator(kind, index=2)
        given: list[int | None] = []

        def note(
            *, device: Device | None, given: list[int | None] = given
        ) -> Iterator[tuple[int, np.ndarray]]:
            given.append(device.index if device else -1)
            yield 0, np.array(next(read))

        list(accelerator.frames(note, METADATA, Tally(), deque(), Damage()))
        assert given == [expected]


def test_what_a_device_has_given_of_several_views_is_not_given_again():
    """Those of several views come in another order from the CPU."""

    def read(*, device: Device | None) -> Iterator[tuple[int, np.ndarray]]:
        order = [0, 0, 1, 0] if device else [1, 1, 0, 0, 1, 0]
        counts = [0, 0]
        for view in order:
            yield view, np.array(counts[view])
            counts[view] += 1
        if device:
            raise VideoError("no luck")

    frames = Accelerator("cuda").frames(read, METADATA, Tally(), deque(), Damage())
    given: list[list[int]] = [[], []]
    for view, frame in frames:
        given[view].append(int(frame))
    assert given == [[0, 1, 2], [0, 1, 2]]

"""Packets that are skipped change no frame that is taken."""

from __future__ import annotations

import subprocess
from collections import deque
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from conftest import run_ffmpeg
from videofeatures.decoding.clips import Decoding
from videofeatures.decoding.decoder import Damage
from videofeatures.decoding.ffmpeg_decoder import FfmpegDecoder
from videofeatures.decoding.frames import iter_frames
from videofeatures.decoding.resizing import Resizing
from videofeatures.decoding.skipping import _as_filter, skip_filter
from videofeatures.decoding.times import FrameTimes
from videofeatures.networks.backbones import BACKBONES
from videofeatures.settings import Settings
from videofeatures.source import Source

SECONDS = 14  # longer than the guarded packets at both ends
X264 = ("-c:v", "libx264", "-preset", "veryfast")
X265 = ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params")
VP9 = ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8")

# name: (encoder's options, packets are skipped)
KINDS = {
    "b_frames.mp4": ((*X264, "-bf", "3"), True),
    "b_frames.mkv": ((*X264, "-bf", "3"), True),
    "short_groups.mp4": ((*X264, "-g", "12"), True),
    "no_b_frames.mp4": ((*X264, "-bf", "0", "-g", "30"), True),
    "open_groups.mp4": ((*X264, "-bf", "3", "-x264-params", "open-gop=1:keyint=30"), True),
    "variable_rate.mp4": (("-vf", "select=mod(n\\,3)", "-fps_mode", "vfr", *X264), True),
    "interlaced.mp4": ((*X264, "-flags", "+ildct+ilme", "-x264-params", "tff=1"), True),
    "hevc.mp4": ((*X265, "bframes=3:log-level=none"), True),
    "hevc_open.mkv": ((*X265, "open-gop=1:keyint=30:bframes=3:log-level=none"), True),
    "vp9.webm": ((*VP9, "-g", "30"), True),
    "late.mkv": (("-output_ts_offset", "2.3", *X264), True),
    "audio_first.mp4": (("-vf", "setpts=PTS+1.37/TB", *X264), True),
    "guessed_times.avi": (X264, False),
    "shifted_times.ts": (X264, False),
    "other_codec.mp4": (("-c:v", "mpeg4", "-bf", "2"), False),
}


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("kinds")
    source = f"testsrc2=s=160x96:r=25:d={SECONDS},noise=alls=20:allf=t"
    for name, (options, _) in KINDS.items():
        sound = ("-f", "lavfi", "-i", f"sine=d={SECONDS}") if "audio" in name else ()
        run_ffmpeg("-f", "lavfi", "-i", source, *sound, *options, folder / name)
    for name in ("b_frames.mp4", "open_groups.mp4"):  # an edit list hides the first frames
        run_ffmpeg("-ss", "1.3", "-i", folder / name, "-c", "copy", folder / f"cut_{name}")
    return {path.name: path for path in folder.iterdir()}


def frames_of(path: Path, frame_rate: float, packet_filter: str | None) -> list[np.ndarray]:
    options = {"frame_rate": frame_rate, "packet_filter": packet_filter}
    return list(iter_frames(str(path), Resizing(size=(80, 48)), **options))


@pytest.mark.parametrize("name", [*KINDS, "cut_b_frames.mp4", "cut_open_groups.mp4"])
@pytest.mark.parametrize("frame_rate", [1, 0.5, 3])
def test_frames_are_the_same(clips, name, frame_rate):
    packet_filter = skip_filter(str(clips[name]), frame_rate)
    is_expected = KINDS[name.removeprefix("cut_")][1]
    assert (packet_filter is not None) == is_expected
    if packet_filter is None:
        return
    plain = frames_of(clips[name], frame_rate, None)
    skipping = frames_of(clips[name], frame_rate, packet_filter)
    assert len(plain) >= 6
    assert [f.tobytes() for f in skipping] == [f.tobytes() for f in plain]


def packet_times(path: Path, *input_options: str) -> list[str]:
    """Decoding times of the packets that ffmpeg reads, in order."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *input_options, "-i", path]
    command += ["-map", "0:V:0", "-c", "copy", "-f", "framecrc", "-"]
    told = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    return [line.split(",")[1] for line in told.stdout.splitlines() if not line.startswith("#")]


@pytest.mark.parametrize("num_flags", [1, 49, 50, 51, 333])
def test_ffmpeg_drops_exactly_what_it_is_told(clips, num_flags):
    times = packet_times(clips["b_frames.mp4"])
    assert len(times) == 25 * SECONDS
    skipped = np.random.default_rng(num_flags).random(num_flags) < 0.5
    skipped[0] = False  # copying begins with a key frame
    kept = [t for k, t in enumerate(times) if k >= num_flags or not skipped[k]]
    assert packet_times(clips["b_frames.mp4"], "-bsf:V:0", _as_filter(skipped)) == kept


@pytest.mark.parametrize(("name", "part"), [("b_frames.mp4", 0.15), ("short_groups.mp4", 0.4)])
def test_a_good_part_is_skipped(clips, name, part):
    packet_filter = skip_filter(str(clips[name]), 1)
    kept = packet_times(clips[name], "-bsf:V:0", packet_filter)
    assert len(kept) < (1 - part) * 25 * SECONDS


@pytest.mark.parametrize("frame_rate", [7, 24, 60])
def test_nothing_is_skipped_where_most_frames_are_taken(clips, frame_rate):
    assert skip_filter(str(clips["b_frames.mp4"]), frame_rate) is None


def test_a_long_video_is_skipped_in_as_far_as_the_filter_reaches(clips, monkeypatch):
    monkeypatch.setattr("videofeatures.decoding.skipping.MAX_PACKETS", 200)
    path = clips["short_groups.mp4"]
    packet_filter = skip_filter(str(path), 1)
    times, kept = packet_times(path), packet_times(path, "-bsf:V:0", packet_filter)
    assert len(kept) < len(times)
    assert kept[-150:] == times[-150:]
    plain, skipping = frames_of(path, 1, None), frames_of(path, 1, packet_filter)
    assert [f.tobytes() for f in skipping] == [f.tobytes() for f in plain]


@pytest.mark.parametrize("damage", ["cut short", "lengths that do not add up"])
def test_a_damaged_file_is_decoded_as_usual(clips, tmp_path, damage):
    content = bytearray(clips["b_frames.mkv"].read_bytes())
    path = tmp_path / "damaged.mkv"
    if damage == "cut short":
        del content[len(content) // 2 :]
    else:
        for place in range(len(content) // 2, len(content) // 2 + 4000, 40):
            content[place] ^= 0xFF
    path.write_bytes(content)
    packet_filter = skip_filter(str(path), 1)
    plain = frames_of(path, 1, None)
    if packet_filter is not None:
        assert len(frames_of(path, 1, packet_filter)) == len(plain)
    assert len(plain) >= 6


def clips_of(path: Path, *, skip_unused: bool) -> list[np.ndarray]:
    with FfmpegDecoder(Settings(skip_unused=skip_unused)) as decoder:
        return list(Decoding(decoder, Source(str(path)), BACKBONES["resnet152"].view).clips())


def test_the_setting_changes_no_clip(real_clips):
    for path in real_clips.values():
        plain, skipping = (clips_of(path, skip_unused=setting) for setting in (False, True))
        assert [clip.tobytes() for clip in skipping] == [clip.tobytes() for clip in plain]
    assert skip_filter(str(real_clips["bikes"]), 1) is not None


def test_the_setting_reaches_ffmpeg(clips, monkeypatch):
    given = []
    monkeypatch.setattr(
        "videofeatures.decoding.ffmpeg_decoder.iter_frames",
        lambda *args, packet_filter, **options: given.append(packet_filter) or iter(()),
    )
    source = Source(str(clips["b_frames.mp4"]))
    for skip_unused in (False, True):
        with FfmpegDecoder(Settings(skip_unused=skip_unused)) as decoder:
            view = BACKBONES["resnet152"].view
            list(
                decoder.frames(source, decoder.probe(source), view, deque(), Damage(), FrameTimes())
            )
    assert given == [None, skip_filter(source.path, 1)]

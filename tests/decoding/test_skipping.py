"""Packets that are skipped change no frame that is taken."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import imageio_ffmpeg
import numpy as np
import pytest

from conftest import run_ffmpeg
from decoding.one_view import iter_frames
from odd_videos import ODD
from videofeatures.decoding.decoder import Damage, StartAnew, VideoMetadata
from videofeatures.decoding.decoding import Decoding
from videofeatures.decoding.ffmpeg_decoder import FfmpegDecoder
from videofeatures.decoding.packets import look_at_packets
from videofeatures.decoding.resizing import Resizing
from videofeatures.decoding.skipping import (
    Packets,
    as_filter,
    find_skipped,
    find_taken,
    rates_to_skip_for,
)
from videofeatures.decoding.view import View
from videofeatures.errors import VideoError
from videofeatures.settings import Settings
from videofeatures.source import Source

SECONDS = 14  # longer than the guarded packets at both ends
X264 = ("-c:v", "libx264", "-preset", "veryfast")
X265 = ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params")
SLOWER_X265 = ("-c:v", "libx265", "-preset", "medium", "-x265-params")
VP9 = ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8")
SVT = ("-c:v", "libsvtav1", "-preset", "10", "-svtav1-params")

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
    "hevc_short_open.mkv": ((*X265, "keyint=12:min-keyint=12:log-level=none"), True),
    "hevc_layers.mp4": ((*SLOWER_X265, "temporal-layers=3:bframes=7:log-level=none"), True),
    "av1.mkv": ((*SVT, "pred-struct=2"), True),
    "av1_low_delay.mp4": ((*SVT, "pred-struct=1"), True),
    "vp9.webm": ((*VP9, "-g", "30"), True),
    "late.mkv": (("-output_ts_offset", "2.3", *X264), True),
    "audio_first.mp4": (("-vf", "setpts=PTS+1.37/TB", *X264), True),
    "guessed_times.avi": (X264, False),
    "shifted_times.ts": (X264, False),
    "other_codec.mp4": (("-c:v", "mpeg4", "-bf", "2"), False),
}


pytestmark = pytest.mark.usefixtures("by_program")


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


def filter_of(path: Path, *frame_rates: float) -> str | None:
    return look_at_packets(str(path), frame_rates=frame_rates).packet_filter


@pytest.mark.parametrize("name", [*KINDS, "cut_b_frames.mp4", "cut_open_groups.mp4"])
@pytest.mark.parametrize("frame_rate", [1, 0.5, 3])
def test_frames_are_the_same(clips, name, frame_rate):
    packet_filter = filter_of(clips[name], frame_rate)
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
    assert packet_times(clips["b_frames.mp4"], "-bsf:V:0", as_filter(skipped)) == kept


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("b_frames.mp4", 0.15),
        ("short_groups.mp4", 0.4),
        ("hevc_short_open.mkv", 0.35),
        ("av1.mkv", 0.15),
    ],
)
def test_a_good_part_is_skipped(clips, name, part):
    packet_filter = filter_of(clips[name], 1)
    kept = packet_times(clips[name], "-bsf:V:0", packet_filter)
    assert len(kept) < (1 - part) * 25 * SECONDS


def test_several_rates_share_one_decode(clips):
    path = clips["b_frames.mp4"]
    together = filter_of(path, 1, 3)
    num_kept = [len(packet_times(path, "-bsf:V:0", filter_of(path, r))) for r in (1, 3)]
    assert len(packet_times(path)) > len(packet_times(path, "-bsf:V:0", together)) >= max(num_kept)
    for rate in (1, 3):
        plain, skipping = frames_of(path, rate, None), frames_of(path, rate, together)
        assert [f.tobytes() for f in skipping] == [f.tobytes() for f in plain]


METADATA = VideoMetadata(64, 48, Fraction(1), 100.0, 25.0, "h264", container="mov")


@pytest.mark.parametrize(
    ("changes", "frame_rates", "expected"),
    [
        ({}, [1.0], (1.0,)),
        ({"codec": "libdav1d", "container": "matroska"}, [1.0, 6.25], (1.0, 6.25)),
        ({}, [7.0], None),
        ({}, [1.0, 24.0], None),
        ({}, [1.0, None], None),
        ({}, [], None),
        ({"average_fps": None}, [1.0], None),
        ({"codec": "mpeg4"}, [1.0], None),
        ({"container": "mpegts"}, [1.0], None),
    ],
)
def test_packets_are_read_where_something_may_be_won(changes, frame_rates, expected):
    metadata = VideoMetadata(**(vars(METADATA) | changes))
    assert rates_to_skip_for(metadata, frame_rates) == expected


def packets(pts: Iterable[int], **columns: Iterable[object]) -> Packets:
    pts = np.array(list(pts))
    kinds = {"is_shown": (True, bool), "layer": (0, np.int64)}
    kinds |= {
        "is_reference": (True, bool),
        "starts_sequence": (False, bool),
        "refers_back": (False, bool),
    }
    made = {
        name: np.array(list(columns.get(name, [default] * len(pts))), dtype)
        for name, (default, dtype) in kinds.items()
    }
    return Packets(pts, **made)


def taken(pts: Iterable[int], time_base: Fraction, start: int, rate: Fraction, **columns) -> list:
    found = find_taken(packets(pts, **columns), time_base, {start * time_base}, rate)
    return np.flatnonzero(found).tolist()


def test_the_last_frame_before_each_middle_is_taken():
    milliseconds = Fraction(1, 1000)
    assert taken(range(0, 4000, 40), milliseconds, 0, Fraction(1)) == [12, 37, 62, 87]
    # Where a frame begins in the very middle, rounding decides: so the one before it counts, too.
    assert taken(range(0, 3000, 100), milliseconds, 0, Fraction(1)) == [4, 5, 14, 15, 24, 25]
    # In the order of the file, however the frames are shown.
    pts = [0, 160, 80, 40, 120, 320, 240, 200, 280, 480, 400, 360, 440, 640, 560, 520, 600]
    assert taken(pts, milliseconds, 0, Fraction(2)) == [6]
    # Not what an edit list cuts off.
    shown = [k != 12 for k in range(100)]
    assert taken(range(0, 4000, 40), milliseconds, 0, Fraction(1), is_shown=shown)[0] == 11
    # Times count from the start, and may be large.
    late = [10**12 + pts for pts in range(0, 4000, 40)]
    assert taken(late, milliseconds, 10**12, Fraction(1)) == [12, 37, 62, 87]
    huge = [2**60 + pts for pts in range(0, 4000, 40)]
    assert taken(huge, milliseconds, 2**60, Fraction(1)) == [12, 37, 62, 87]


def skipped(num: int, taken: Iterable[int], **columns: Iterable[object]) -> list[int]:
    is_taken = np.isin(np.arange(num), list(taken))
    return np.flatnonzero(find_skipped(packets(range(num), **columns), is_taken)).tolist()


def test_what_is_needed_by_nothing_that_is_taken_is_skipped():
    starts = [k % 5 == 0 for k in range(10)]
    assert skipped(10, [2, 5], starts_sequence=starts) == [3, 4, 6, 7, 8, 9]
    leaves = [k not in (1, 2) for k in range(5)]
    assert skipped(5, [2, 4], is_reference=leaves) == [1]
    assert skipped(5, []) == [0, 1, 2, 3, 4]


def test_what_leads_an_open_group_needs_the_one_before():
    group = [k % 5 == 0 for k in range(10)]
    leads = [k in (6, 7) for k in range(10)]
    columns = {"starts_sequence": group, "refers_back": leads}
    assert skipped(10, [7], **columns) == [8, 9]
    leaves = [k not in (3, 6, 7) for k in range(10)]
    assert skipped(10, [7], **columns, is_reference=leaves) == [3, 6, 8, 9]
    # One that comes after the key frame refers to no leading picture, but that is not told here.
    assert skipped(10, [8], **columns, is_reference=leaves) == [0, 1, 2, 3, 4, 6, 7, 9]


def test_higher_layers_are_needed_by_higher_ones_alone():
    layers = [0, 2, 1, 2, 0, 2, 1, 2, 0]
    assert skipped(9, [8], layer=layers) == [1, 2, 3, 5, 6, 7]
    assert skipped(9, [6], layer=layers) == [1, 3, 5, 7, 8]
    assert skipped(9, [7], layer=layers) == [8]
    leaves = [layer < 2 for layer in layers]
    assert skipped(9, [7], layer=layers, is_reference=leaves) == [1, 3, 5, 8]


def test_a_long_video_is_skipped_in_as_far_as_the_filter_reaches(clips, monkeypatch):
    monkeypatch.setattr("videofeatures.decoding.skipping.MAX_PACKETS", 200)
    path = clips["short_groups.mp4"]
    packet_filter = filter_of(path, 1)
    times, kept = packet_times(path), packet_times(path, "-bsf:V:0", packet_filter)
    assert len(kept) < len(times)
    assert kept[-150:] == times[-150:]
    plain, skipping = frames_of(path, 1, None), frames_of(path, 1, packet_filter)
    assert [f.tobytes() for f in skipping] == [f.tobytes() for f in plain]


class Outcome(NamedTuple):
    """What becomes of a video: the bytes of its clips, and all that is said of it."""

    clips: list[bytes]
    reason: str | None
    warning: str | None
    is_repeated: bool
    damage: Damage
    num_messages: int


def outcome(path: Path, rate: float, *, skip_unused: bool) -> Outcome:
    settings = Settings(skip_unused=skip_unused, decode_timeout_seconds=30)
    view = View(frame_rate=rate, resize_size=32, crop_size=32)
    with FfmpegDecoder(settings) as decoder:
        decoding = Decoding(decoder, Source(str(path)), view, truncated="keep", damaged="keep")
        reason = None
        for _ in range(2):
            clips = []
            try:
                clips.extend(clip.tobytes() for clip in decoding.clips())
            except StartAnew:
                continue
            except VideoError as error:
                reason = error.reason
            break
        known = (decoding.warning, decoding.is_repeated, decoding.damage, len(decoding.messages))
        assert decoding.num_frames == len(clips)
        return Outcome(clips, reason, *known)


def assert_same(path: Path, rate: float) -> bool:
    """All is the same, skipped or not; returns whether it took a second time."""
    skipping = outcome(path, rate, skip_unused=True)
    plain = outcome(path, rate, skip_unused=False)
    assert not plain.is_repeated
    assert skipping[:3] == plain[:3]
    if skipping.damage.num_damaged_frames or skipping.num_messages or plain.reason:
        assert skipping[4:] == plain[4:]
    else:  # of what is left out, nobody counts how much is damaged
        assert (plain.damage.share or 0) < 0.1
    return skipping.is_repeated


@pytest.mark.parametrize("name", [name for name in ODD if "4k" not in name])
def test_odd_videos_are_the_same(tmp_path, name):
    path = tmp_path / name
    ODD[name][0](path)
    if path.is_file():
        for rate in (1, 3):
            assert_same(path, rate)


def flipped(path: Path, to: Path, seed: int, num: int) -> Path:
    """So many bytes of a file, but for its beginning and its end, are others."""
    content = bytearray(path.read_bytes())
    random = np.random.default_rng(seed)
    for place in random.integers(len(content) // 20, len(content) * 4 // 5, num):
        content[place] ^= int(random.integers(1, 256))
    to.write_bytes(content)
    return to


@pytest.mark.parametrize("name", ["b_frames.mp4", "b_frames.mkv", "hevc.mp4", "av1.mkv"])
def test_damaged_files_are_the_same(clips, tmp_path, name):
    """What is decoded again is decoded with nothing left out, and need not be the same twice: of
    much damage, ffmpeg's decoders for H.264 and HEVC do not say the same."""
    repeated = []
    for seed, num in enumerate((3, 30, 300)):
        path = flipped(clips[name], tmp_path / f"{seed}{name}", seed, num)
        skipping = outcome(path, 1, skip_unused=True)
        plain = outcome(path, 1, skip_unused=False)
        assert skipping.reason == plain.reason
        repeated.append(skipping.is_repeated)
        # Nobody can say that HEVC is damaged where its decoder does not.
        if not skipping.is_repeated and name != "hevc.mp4":
            assert skipping.clips == plain.clips
    assert any(repeated)


@pytest.mark.parametrize("part", [0.3, 0.5, 0.9])
def test_files_that_were_cut_off_are_the_same(clips, tmp_path, part):
    for name in ("b_frames.mkv", "vp9.webm"):
        path = tmp_path / name
        path.write_bytes(clips[name].read_bytes()[: int(part * clips[name].stat().st_size)])
        assert_same(path, 1)


def test_what_came_before_a_complaint_does_not_count(clips, complains_late, caplog):
    caplog.set_level("INFO")
    source = Source(str(clips["b_frames.mp4"]))
    view = View(frame_rate=1, resize_size=32, crop_size=32)
    plain = outcome(Path(source.path), 1, skip_unused=False).clips
    with FfmpegDecoder(Settings()) as decoder:
        decoding = Decoding(decoder, source, view)
        first = []
        with pytest.raises(StartAnew):
            first.extend(decoding.clips())
        assert len(first) == 3
        assert (decoding.num_clips, decoding.num_frames, list(decoding.messages)) == (0, 0, [])
        assert [clip.tobytes() for clip in decoding.clips()] == plain
        assert (decoding.num_clips, decoding.is_repeated) == (SECONDS, True)
        told = f"{source}: decoded again, with nothing left out: {complains_late}"
        assert [record.getMessage() for record in caplog.records] == [told]
        # What is known of the file is known the next time.
        again = Decoding(decoder, source, view)
        assert [clip.tobytes() for clip in again.clips()] == plain
        assert not again.is_repeated


def test_nothing_is_told_of_what_begins_anew_before_anything_has_come(clips, complains_late):
    view = View(frame_rate=1, resize_size=32, crop_size=32, num_frames_per_clip=7)
    with FfmpegDecoder(Settings()) as decoder:
        decoding = Decoding(decoder, Source(str(clips["b_frames.mp4"])), view)
        assert [clip.shape for clip in decoding.clips()] == [(7, 32, 32, 3)] * 2
        assert (decoding.num_clips, decoding.num_frames) == (2, SECONDS)
        assert decoding.is_repeated
        assert not decoding.messages


def test_real_videos_are_the_same(real_clips):
    for path in real_clips.values():
        assert not assert_same(path, 1)
    assert filter_of(real_clips["bikes"], 1) is not None


def test_the_setting_reaches_ffmpeg(clips, monkeypatch):
    given = []
    monkeypatch.setattr(
        "videofeatures.decoding.ffmpeg_decoder.iter_frames",
        lambda *args, packet_filter, **options: given.append(packet_filter) or iter(()),
    )
    path, view = clips["b_frames.mp4"], View(frame_rate=1, resize_size=32, crop_size=0)

    def decode(**settings: object) -> str | None:
        with FfmpegDecoder(Settings(**settings)) as decoder:
            list(Decoding(decoder, Source(str(path)), view, truncated="keep").clips())
        return given.pop()

    assert decode(skip_unused=False) is None
    assert decode() == filter_of(path, 1)
    # An older ffmpeg does not know such filters.
    monkeypatch.setattr(
        "videofeatures.decoding.ffmpeg_decoder.can_chain_graphs", lambda stopped: False
    )
    assert decode() is None

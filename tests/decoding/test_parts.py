"""A part of a video is what a lossless cut of it is, byte for byte."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import math
import random
import re
import subprocess
from collections import deque
from fractions import Fraction
from pathlib import Path

import ffmpeg
import imageio_ffmpeg
import numpy as np
import pytest

from conftest import run_ffmpeg
from decoding.drawn_videos import make_numbered, numbers
from videofeatures.decoding import ffmpeg_decoder
from videofeatures.decoding.decoding import Decoding
from videofeatures.decoding.ffmpeg_decoder import FfmpegDecoder
from videofeatures.decoding.parts import Cut, Landing
from videofeatures.decoding.process import ReadTimeout
from videofeatures.decoding.seeking import find_landing
from videofeatures.decoding.view import View
from videofeatures.errors import VideoError
from videofeatures.settings import Settings
from videofeatures.source import Source

SECONDS = 14
X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-bf", "3")
X265 = ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params")
VP9 = ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-g", "30")
AV1 = ("-c:v", "libsvtav1", "-preset", "13", "-g", "30", "-svtav1-params", "lp=1")

# name: (rate, encoder's options, there is a seek)
KINDS = {
    "b_frames.mp4": ("25", (*X264, "-g", "50"), True),
    "ntsc.mp4": ("30000/1001", (*X264, "-g", "30"), True),
    "ntsc.mkv": ("30000/1001", (*X264, "-g", "30"), True),
    "film.mov": ("24000/1001", (*X264, "-g", "48"), True),
    "open_groups.mp4": ("25", (*X264, "-x264-params", "open-gop=1:keyint=30:scenecut=0"), True),
    "open_groups.mkv": ("25", (*X264, "-x264-params", "open-gop=1:keyint=30:scenecut=0"), True),
    "refresh.mp4": ("25", (*X264, "-bf", "0", "-x264-params", "intra-refresh=1:keyint=30"), False),
    "one_group.mp4": ("25", (*X264, "-g", "9999"), False),
    "variable_rate.mp4": (
        "25",
        ("-vf", "select=mod(n\\,3)*lt(mod(n\\,100)\\,70)", "-fps_mode", "vfr", *X264, "-g", "50"),
        True,
    ),
    "fragments.mp4": ("25", (*X264, "-g", "50", "-movflags", "frag_keyframe+empty_moov"), True),
    "hevc.mp4": ("25", (*X265, "keyint=50:bframes=3:open-gop=0:log-level=none"), True),
    "hevc_open.mkv": ("25", (*X265, "open-gop=1:keyint=30:bframes=3:log-level=none"), True),
    "vp9.webm": ("25", VP9, True),
    "av1.mkv": ("25", AV1, True),
    "mpeg2.mkv": ("25", ("-c:v", "mpeg2video", "-bf", "2", "-g", "15"), True),
    "intra.mov": ("25", ("-c:v", "mjpeg"), True),
    "late.mkv": ("25", ("-output_ts_offset", "2.3", *X264, "-g", "50"), True),
    "sound_first.mp4": ("25", ("-vf", "setpts=PTS+1.37/TB", *X264, "-g", "50"), True),
    "mpeg4.avi": ("25", ("-c:v", "mpeg4", "-bf", "2", "-g", "50"), False),
    "ntsc.avi": ("30000/1001", ("-c:v", "mpeg4", "-g", "50"), False),
    "shifted_times.ts": ("25", (*X264, "-g", "50"), False),
    "film.flv": ("24000/1001", (*X264, "-g", "50"), False),
}
CUT = ("cut_b_frames.mp4", "cut_open_groups.mp4")
SIZE = 32


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("kinds")
    for name, (rate, options, _) in KINDS.items():
        source = f"testsrc2=s=96x64:r={rate}:d={SECONDS},noise=alls=20:allf=t,format=yuv420p"
        sound = ("-f", "lavfi", "-i", f"sine=d={SECONDS}") if "sound" in name else ()
        run_ffmpeg("-f", "lavfi", "-i", source, *sound, *options, folder / name)
    for name in CUT:  # an edit list hides the first frames
        whole = folder / name.removeprefix("cut_")
        run_ffmpeg("-ss", "1.3", "-i", whole, "-c", "copy", folder / name)
    return {path.name: path for path in folder.iterdir()}


@pytest.fixture(scope="module")
def decoder():
    with FfmpegDecoder(Settings()) as decoder:
        yield decoder


def start_decoding(decoder, source: Source, frame_rate: float, **options) -> Decoding:
    view = View(frame_rate=frame_rate, resize_size=SIZE, crop_size=0)
    return Decoding(decoder, source, view, **options)


def decode(decoder, source: Source, frame_rate: float = 25) -> list[bytes]:
    decoding = start_decoding(decoder, source, frame_rate)
    frames = [pixels.tobytes() for pixels in decoding.clips()]
    assert not decoding.messages or source.path.endswith(CUT)  # which are so as a whole, too
    assert not decoding.damage.share
    return frames


def md5s(frames: list[bytes]) -> list[str]:
    return [hashlib.md5(frame).hexdigest() for frame in frames]


def shown(path: Path) -> list[tuple[Fraction, str]]:
    """All of a video's frames, decoded at one go: when they begin, in seconds from the
    container's zero, and the MD5 of their pixels."""
    scale = f"scale={SIZE * 3 // 2}:{SIZE}:flags=bilinear,format=rgb24"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", path, "-map", "0:V:0"]
    command += ["-vf", scale, "-fps_mode", "passthrough", "-enc_time_base", "demux"]
    told = subprocess.run(
        [*map(str, command), "-f", "framemd5", "-"], capture_output=True, text=True, check=True
    ).stdout
    tick = Fraction(re.search(r"#tb 0: (\S+)", told)[1])
    rows = [line.split(",") for line in told.splitlines() if not line.startswith("#")]
    return [(int(pts) * tick, md5.strip()) for _, _, pts, _, _, md5 in rows]


def cut_off(path: Path, start: float, end: float, target: Path) -> Path:
    """A file of a part of a video, cut without loss."""
    # The sound starts the file, also where the first frame comes later.
    run_ffmpeg(
        *("-i", path, "-f", "lavfi", "-i", f"anullsrc=d={end - start}"),
        *("-map", "0:V:0", "-map", "1", "-vf", f"trim={start}:{end},setpts=round(PTS-{start}/TB)"),
        *("-fps_mode", "passthrough", "-enc_time_base", "demux"),
        *("-c:v", "libx264", "-qp", "0", "-bf", "0", target),
    )
    return target


def round_to(tick: Fraction, seconds: float) -> Fraction:
    """The nearest tick, or part of it that is no longer than a millisecond."""
    tick /= math.ceil(tick * 1000)
    return math.floor(Fraction(str(seconds)) / tick + Fraction(1, 2)) * tick


def expected(
    frames: list[tuple[Fraction, str]], start: Fraction, end: Fraction, rate: int, fps: float
) -> list[str]:
    """What a cut shows: at each second k / rate, the last of its frames that begins before
    (k + 0.5) / rate, until the frame after the last one begins, or a usual frame would."""
    inside = [(time - start, md5) for time, md5 in frames if start <= time < end]
    after = [time - start for time, _ in frames if time >= end]
    last = after[0] if after else 2 * inside[-1][0] - inside[-2][0]
    last = min(last, end - start + 1 / Fraction(str(fps)))
    number = math.floor(last * rate + Fraction(1, 2))
    begun = [
        [md5 for time, md5 in inside if time < (k + Fraction(1, 2)) / rate] for k in range(number)
    ]
    chosen = [before[-1] for before in begun if before]
    # What comes before the first frame that is taken shows that one.
    return [chosen[0]] * (number - len(chosen)) + chosen if chosen else [inside[0][1]]


def some_parts(times: list[Fraction], number: int, seed: int) -> list[tuple[float, float]]:
    """Parts that start and end on frames, just before, just after, and between them."""
    chance = random.Random(seed)
    near = (0, -0.002, 0.002, 0.013)
    parts = []
    for _ in range(number):
        first = chance.randrange(len(times) - 40)
        last = min(first + chance.randrange(3, 80), len(times) - 1)
        start = max(0.0, float(times[first]) + chance.choice(near))
        parts.append((round(start, 6), round(float(times[last]) + chance.choice(near), 6)))
    return parts


@pytest.mark.parametrize("name", [*KINDS, *CUT])
def test_a_part_is_what_a_lossless_cut_is(clips, decoder, name):
    path = str(clips[name])
    frames = shown(clips[name])
    landing = find_landing(path, 0.8 * SECONDS)
    fps = decoder.probe(Source(path)).average_fps
    if name in KINDS:
        assert bool(landing.seconds) == KINDS[name][2]
    for number, (start, end) in enumerate(some_parts([time for time, _ in frames], 5, len(path))):
        rate = (1, 3, 24, 25, 30)[number]
        ends = (round_to(landing.tick, seconds) for seconds in (start, end))
        found = md5s(decode(decoder, Source(path, start, end), rate))
        assert found == expected(frames, *ends, rate, fps), (start, end, rate)


@pytest.mark.parametrize("name", ["b_frames.mp4", "ntsc.mp4", "open_groups.mkv", "sound_first.mp4"])
@pytest.mark.parametrize(("start", "end"), [(3.2, 6.64), (8.008, 9.009), (4.7321, 9.9)])
def test_a_part_is_the_file_that_is_cut_there(clips, decoder, tmp_path, name, start, end):
    cut = cut_off(clips[name], start, end, tmp_path / "cut.mp4")
    for rate in (1, 24, 25):
        part = decode(decoder, Source(str(clips[name]), start, end), rate)
        assert part == decode(decoder, Source(str(cut)), rate)


VIEWS = {
    "native": {"frame_rate": "native"},
    "every third": {"frame_rate": "native", "frame_interval": 3},
    "five": {"frame_rate": 1, "num_frames": 5},
    "fifty": {"frame_rate": 1, "num_frames": 50},
    "every third at a rate": {"frame_rate": 10, "frame_interval": 3},
    "windows": {"frame_rate": 10, "num_frames_per_clip": 8, "clip_stride": 4, "last_clip": "shift"},
    "own windows": {"frame_rate": "native", "num_frames_per_clip": 8, "last_clip": "drop"},
    "by Pillow": {
        "frame_rate": 5,
        "resizer": "pillow",
        "crop_size": 16,
        "interpolation": "bicubic",
    },
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
@pytest.mark.parametrize("name", ["ntsc.mkv", "b_frames.mp4", "shifted_times.ts"])
def test_a_part_is_the_file_that_is_cut_there_whatever_is_taken(
    clips, decoder, tmp_path, name, view
):
    start, end = 3.21, 6.43
    cut_off(clips[name], start, end, tmp_path / "cut.mp4")
    view = View(**({"resize_size": SIZE, "crop_size": 0} | view))
    part = Decoding(decoder, Source(str(clips[name]), start, end), view)
    cut = Decoding(decoder, Source(str(tmp_path / "cut.mp4")), view)
    found, wanted = ([pixels.tobytes() for pixels in d.clips()] for d in (part, cut))
    assert md5s(found) == md5s(wanted)
    assert len(found) > 1
    assert part.times.start_seconds[0] >= start
    np.testing.assert_allclose(part.times.timestamps, start + cut.times.timestamps, atol=0.002)


def test_key_frames_of_a_part(clips, decoder):
    view = View(frame_rate=1, resize_size=SIZE, crop_size=0, keyframes_only=True)
    part = Decoding(decoder, Source(str(clips["b_frames.mp4"]), 3.5, 8.2), view)
    found = [pixels.tobytes() for pixels in part.clips()]
    every = dict(shown(clips["b_frames.mp4"]))
    assert md5s(found) == [every[Fraction(seconds)] for seconds in (4, 6, 8)]
    np.testing.assert_allclose(part.times.start_seconds, [4, 6, 8])
    np.testing.assert_allclose(part.times.end_seconds, [6, 8, 8.2])
    without = Decoding(decoder, Source(str(clips["b_frames.mp4"]), 4.5, 5.5), view)
    with pytest.raises(VideoError, match="no key frame: see `keyframes_only`"):
        list(without.clips())


@pytest.mark.parametrize("name", ["b_frames.mp4", "shifted_times.ts", "mpeg4.avi"])
def test_parts_that_touch_have_each_frame_once(clips, decoder, name):
    path = str(clips[name])
    whole = decode(decoder, Source(path))
    ends = [None, 1.0, 4.04, 4.08, 9.32, None]
    parts = [decode(decoder, Source(path, start, end)) for start, end in itertools.pairwise(ends)]
    assert [frame for part in parts for frame in part] == whole
    assert decode(decoder, Source(path, None, SECONDS + 0.5)) == whole


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> Path:
    """24 frames at 24000/1001 a second."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    source = "color=black:s=64x48:r=24000/1001:d=1.001,format=yuv444p,geq=lum=16+2*N:cb=128:cr=128"
    run_ffmpeg("-f", "lavfi", "-i", source, *X264, "-qp", "0", path)
    return path


def frames_of(decoder, source: Source, frame_rate: float = 24) -> list[int]:
    return numbers(list(start_decoding(decoder, source, frame_rate).clips()))


def test_any_part_has_the_frames_that_begin_in_it(film, decoder):
    chance = random.Random(2)
    times = [Fraction(1001 * number, 24000) for number in range(24)]
    for _ in range(40):
        start, end = sorted(round(chance.uniform(0, 1), 6) for _ in range(2))
        inside = [number for number, time in enumerate(times) if start <= time < end]
        before = [number for number, time in enumerate(times) if time < start]
        # Much faster than they come, so that each is taken.
        found = frames_of(decoder, Source(str(film), start, end), 240)
        assert sorted(set(found)) == (inside or before[-1:]), (start, end)


@pytest.mark.parametrize("number", [1, 7, 23])
@pytest.mark.parametrize("digits", [3, 4, 6, 9])
def test_a_time_with_some_digits_is_that_of_its_frame(film, decoder, number, digits):
    # Of this clock, a tick is less than a tenth of a millisecond.
    write = round if digits > 4 else lambda time, digits: math.floor(time * 10**digits) / 10**digits
    start, end = (float(write(Fraction(1001 * k, 24000), digits)) for k in (number, number + 1))
    assert frames_of(decoder, Source(str(film), start, end)) == [number]


@pytest.fixture(scope="module")
def slides(tmp_path_factory) -> Path:
    """Frames 0, 5 and 12, which stand for 5, 7 and 1 seconds."""
    folder = tmp_path_factory.mktemp("slides")
    numbered = make_numbered(folder / "numbered.mkv", num_frames=13, rate=1)
    path = folder / "slides.mp4"
    chosen = "select=eq(n\\,0)+eq(n\\,5)+eq(n\\,12)"
    run_ffmpeg("-i", numbered, "-vf", chosen, "-fps_mode", "vfr", *X264, "-qp", "0", path)
    return path


@pytest.mark.parametrize(
    ("start", "end", "frame_rate", "frames"),
    [
        (1, 4, 1, [0, 0, 0]),  # none begins in it: the one that is shown
        (1, 4, 0.1, [0]),
        (2.5, 2.51, 1, [0]),
        (6, 7, 3, [5, 5, 5]),
        (12.5, None, 4, [12, 12]),
        (5, 12, 1, [5] * 7),
        (5, 12.5, 1, [5] * 7 + [12]),
        (4, 6, 1, [5, 5]),  # as in a cut file, which begins with it
    ],
)
def test_a_frame_that_stands_is_that_of_a_part_between_two(
    slides, decoder, start, end, frame_rate, frames
):
    assert frames_of(decoder, Source(str(slides), start, end), frame_rate) == frames


def test_a_part_is_no_longer_than_a_usual_frame_for_its_last_one(tmp_path, decoder):
    source = make_numbered(tmp_path / "numbered.mkv", num_frames=20, rate=1)
    path = tmp_path / "stands.mp4"
    # Frame 9 begins at 0.9 s and stands until 2.9 s; a usual one does for some 0.2 s.
    stands = "setpts=if(lt(N\\,10)\\,N*0.1\\,N*0.1+1.9)/TB"
    clock = ("-fps_mode", "vfr", "-enc_time_base", "1/1000")
    run_ffmpeg("-i", source, "-vf", stands, *clock, *X264, "-qp", "0", path)
    assert frames_of(decoder, Source(str(path), 0.6, 1.0), 10) in ([6, 7, 8, 9], [6, 7, 8, 9, 9, 9])


@pytest.mark.parametrize(
    ("start", "end", "num_frames"), [(None, 0.5, 13), (0.2, 0.9, 18), (0.2, 0.21, 1)]
)
def test_before_the_first_frame_is_the_first_frame(clips, decoder, start, end, num_frames):
    path = clips["sound_first.mp4"]
    found = md5s(decode(decoder, Source(str(path), start, end)))
    assert found == [shown(path)[0][1]] * num_frames


def test_a_long_part_before_the_first_frame_is_not_truncated(tmp_path, decoder):
    path = tmp_path / "late.mp4"
    late = ("-f", "lavfi", "-i", "testsrc2=s=64x48:d=2", "-vf", "setpts=PTS+10/TB", *X264)
    run_ffmpeg("-f", "lavfi", "-i", "sine=d=12", *late, path)
    assert len(decode(decoder, Source(str(path), 2.0, 8.0), 1)) == 6


@pytest.fixture(scope="module")
def long_video(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    run_ffmpeg(
        *("-f", "lavfi", "-i", "testsrc2=s=64x48:r=25:d=600", *X264, "-g", "100", "-threads", "1"),
        path,
    )
    return path


def test_a_part_far_into_a_video_does_not_decode_it_from_its_beginning(long_video, decoder):
    decoding = start_decoding(decoder, Source(str(long_video), 580.0, 584.0), 25)
    assert len(list(decoding.clips())) == 100
    # A margin, a group of pictures before it, and what the threads read ahead.
    assert decoding.damage.num_frames < 100 + 25 + 100 + 50
    decoding = start_decoding(decoder, Source(str(long_video), 20.0, 24.0), 25)
    list(decoding.clips())
    assert decoding.damage.num_frames < 300  # it does not go on behind its end


def test_what_is_skipped_is_of_whole_videos(long_video):
    source = Source(str(long_video), 300.5, 310.0)
    with FfmpegDecoder(Settings(skip_unused=True)) as skipping, FfmpegDecoder(Settings()) as plain:
        assert decode(skipping, source, 1) == decode(plain, source, 1)


# --- what is behind the end


@pytest.mark.parametrize(
    ("name", "start", "reason"),
    [
        ("b_frames.mp4", 14.0, "starts at 14 s, and the video ends at 14 s"),
        ("b_frames.mp4", 14.5, "starts at 14.5 s, and the video ends at 14 s"),
        ("b_frames.mp4", 1e8, "starts at 100000000 s, and the video ends at 14 s"),
        ("ntsc.mkv", 20.25, "starts at 20.25 s, and the video ends at 14.014 s"),
        ("shifted_times.ts", 15.0, "starts at 15 s, and the video ends at 14 s"),
        ("mpeg4.avi", 15.0, "starts at 15 s, and the video ends at 14 s"),
    ],
)
def test_a_part_behind_the_end_fails(clips, decoder, name, start, reason):
    for end in (None, start + 5):
        with pytest.raises(VideoError) as error:
            decode(decoder, Source(str(clips[name]), start, end), 1)
        assert error.value.reason == reason


@pytest.mark.parametrize("name", ["b_frames.mp4", "shifted_times.ts", "ntsc.mkv", "mpeg4.avi"])
def test_a_part_that_ends_behind_the_end_is_truncated(clips, decoder, name):
    source = Source(str(clips[name]), 10.0, 20.0)
    decoding = start_decoding(decoder, source, 1)
    with pytest.raises(VideoError) as error:
        list(decoding.clips())
    assert error.value.reason == "ends at 14 s of 20 s: truncated"
    decoding = start_decoding(decoder, source, 1, truncated="keep")
    assert len(list(decoding.clips())) == 4
    assert decoding.warning == "ends at 14 s of 20 s: truncated"


@pytest.mark.parametrize("end", [13.5, 14.0, 14.9])
def test_an_end_may_be_off_a_little(clips, decoder, end):
    source = Source(str(clips["b_frames.mp4"]), 10.0, end)
    assert len(decode(decoder, source, 1)) == 4


def test_a_part_of_a_file_that_was_cut_off(clips, decoder, tmp_path):
    whole = tmp_path / "whole.mp4"
    run_ffmpeg("-i", clips["b_frames.mp4"], "-c", "copy", "-movflags", "faststart", whole)
    path = tmp_path / "half.mp4"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    assert len(decode(decoder, Source(str(path), 1.0, 4.0), 1)) == 3
    with pytest.raises(VideoError) as error:
        list(start_decoding(decoder, Source(str(path), 4.0, 12.0), 1).clips())
    assert re.fullmatch(r"ends at [678] s of 12 s: truncated", error.value.reason)
    with pytest.raises(
        VideoError, match=r"^starts at 11 s, and there is no frame then, .*: truncated or damaged$"
    ):
        list(start_decoding(decoder, Source(str(path), 11.0, 12.0), 1).clips())


def test_damage_elsewhere_is_not_that_of_a_part(clips, decoder, tmp_path):
    path = tmp_path / "damaged.mp4"
    noise = "noise=amount=if(between(n\\,60\\,150)\\,40\\,0)"
    run_ffmpeg("-i", clips["b_frames.mp4"], "-c", "copy", "-bsf:v", noise, path)
    damaged = start_decoding(decoder, Source(str(path), None, 4.0), 1, damaged="keep")
    list(damaged.clips())
    assert damaged.damage.share
    assert len(decode(decoder, Source(str(path), 9.0, 12.0), 1)) == 3


@pytest.mark.parametrize(
    ("tick", "source", "ends"),
    [
        (Fraction(1, 12800), Source("a", 0.5, 1.0), "trim=end_pts=12800:start_pts=6400"),
        (Fraction(1, 30000), Source("a", 0.033367), "trim=start_pts=1001"),
        (Fraction(1, 1000), Source("a", None, 0.0005), "trim=end_pts=1:start_pts=0"),
        (Fraction(1, 25), Source("a", 0.51, 0.52), "trim=end_pts=520:start_pts=510"),
        (Fraction(1, 1000), Source("a", 1e-9, 2e-9), "trim=end_pts=1:start_pts=0"),
    ],
)
def test_times_are_whole_ticks(tick, source, ends):
    cut = Cut(source, Landing(tick))
    command = cut.inside(ffmpeg.input("x")).output("y").get_args()
    assert ends in command[command.index("-filter_complex") + 1]


def test_what_is_before_an_open_group_is_not_decoded():
    landing = Landing(Fraction(1, 1000), Fraction(5, 2), -700, is_open=True)
    cut = Cut(Source("a", 3.5), landing)
    drop = "noise=drop='lt(pts\\,-700)'"
    options = {"ss": "2.500000", "noaccurate_seek": None}
    assert cut.input_options(can_filter=True) == options | {"bsf:V:0": drop}
    assert cut.input_options(can_filter=False) == options
    closed = Cut(Source("a", 3.5), Landing(Fraction(1, 1000), Fraction(5, 2), -700))
    assert closed.input_options(can_filter=True) == options
    said = deque(["[h264 @ 0x1] mmco: unref short failure", "[h264 @ 0x1] damaged"])
    closed.remove_expected(said)
    assert len(said) == 2
    cut.remove_expected(said)
    assert list(said) == ["[h264 @ 0x1] damaged"]


def test_who_decodes_what_is_skipped_has_the_time_for_it(clips, monkeypatch, by_program):
    given = []

    def iter_frames(*_: object, read_timeout: ReadTimeout, **__: object):
        given.append(read_timeout.timeout_seconds)
        yield from ()

    monkeypatch.setattr(ffmpeg_decoder, "iter_frames", iter_frames)
    with FfmpegDecoder(Settings(decode_timeout_seconds=5)) as decoder:
        for name, start in (
            ("b_frames.mp4", 9.0),
            ("shifted_times.ts", 9.0),
            ("b_frames.mp4", None),
        ):
            with contextlib.suppress(VideoError):
                decode(decoder, Source(str(clips[name]), start))
    assert given == [5 + 1, 5 + 9, 5]  # there is a key frame at 8 s

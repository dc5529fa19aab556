"""What libav's libraries decode in workers is what ffmpeg's program gives; it does the rest."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
import pytest

from conftest import make_clip
from decoding.faulty_videos import workers
from odd_videos import ODD
from videofeatures.decoding import ffmpeg_decoder, short_videos, worker_pool
from videofeatures.decoding.decoder import StartAnew
from videofeatures.decoding.decoding import Decoding
from videofeatures.decoding.ffmpeg import EXTRA_NICENESS, ffmpeg_path
from videofeatures.decoding.ffmpeg_decoder import FfmpegDecoder
from videofeatures.decoding.frames import iter_frames
from videofeatures.decoding.process import MemoryLimitError, NoAnswerError
from videofeatures.decoding.told import Told
from videofeatures.decoding.view import View
from videofeatures.errors import MachineError, VideoError
from videofeatures.settings import Settings
from videofeatures.source import Source

VIEWS = (
    View(frame_rate=1, resize_size=64, crop_size=0),
    View(frame_rate=24, resize_size=32, crop_size=32, num_frames_per_clip=7),
    View(frame_rate=3, resize_size=48, crop_size=48, interpolation="bicubic", frame_interval=2),
    View(frame_rate=1, resize_size=64, crop_size=64, resizer="pillow", interpolation="bicubic"),
    View(frame_rate=2, resize_size=200, crop_size=0, interpolation="lanczos"),
    View(frame_rate=2, resize_size=40, crop_size=0, interpolation="area", resize_mode="squash"),
)

AT_ONCE = {
    *("one_frame.mp4", "third_of_a_second.mp4"),  # of three frames a second, not of one
    *("short_duration.mkv", "variable_rate.mp4", "long_last_frame.mp4"),
    *("late_pictures_alone.mkv", "late_as_a_whole.mkv", "short_sound.mp4", "long_sound.mp4"),
    *("subtitles.mkv", "subtitles.mp4", "late_fragments.mp4", "not_square.mp4", "16x16.mp4"),
    *("10_bit.mkv", "hdr.mp4", "interlaced.mp4", "alpha.webm", "1_fps.mp4", "240_fps.mp4"),
    *("hevc.mp4", "vp9.webm", "av1.mkv", "two_films.mkv"),
    *(name for name in ODD if name.startswith("long_name")),
}
"""Odd videos that are decoded at once, at one rate or at another; all others are ffmpeg's."""


class Outcome(NamedTuple):
    """What becomes of a video: the bytes of each view's clips, and all that is said of them."""

    clips: list[list[bytes]]
    reason: str | None
    told: list[tuple[object, ...]]
    has_asked_ffmpeg: bool


@pytest.fixture
def outcome(monkeypatch):
    """Decodes a video, at once where that is possible, or by ffmpeg's program."""
    programs: list[str] = []

    def noted(path: str, *arguments: object, **options: object) -> Iterator:
        programs.append(path)
        return iter_frames(path, *arguments, **options)

    monkeypatch.setattr(ffmpeg_decoder, "iter_frames", noted)

    def decode(path: Path, *views: View, at_once: bool, **settings: object) -> Outcome:
        max_bytes = 16 << 20 if at_once else -1
        monkeypatch.setattr(short_videos, "MAX_FILE_BYTES", max_bytes)
        programs.clear()
        with FfmpegDecoder(Settings(**{"decode_timeout_seconds": 60} | settings)) as decoder:
            decoding = Decoding(
                decoder, Source(str(path)), *views, truncated="keep", damaged="keep"
            )
            reason, clips = None, [[] for _ in views]
            for _ in range(2):
                clips = [[] for _ in views]
                try:
                    for number, pixels in decoding.clips_of_views():
                        clips[number].append(pixels.tobytes())
                except StartAnew:
                    continue
                except VideoError as error:
                    reason = error.reason
                break
            told = [
                (
                    view.num_frames,
                    view.warning,
                    str(view.error),
                    len(view.told.messages),
                    view.told.damage.share,
                    None if view.times is None else [each.tolist() for each in view.times],
                )
                for view in decoding.views
            ]
        return Outcome(clips, reason, told, bool(programs))

    return decode


def assert_same(outcome, path: Path, *views: View, **settings: object) -> bool:
    """All is the same; returns whether frames came without the program."""
    at_once = outcome(path, *views, at_once=True, **settings)
    by_program = outcome(path, *views, at_once=False, **settings)
    assert at_once[:3] == by_program[:3]
    return at_once.reason is None and not at_once.has_asked_ffmpeg


@pytest.mark.parametrize("name", [name for name in ODD if "4k" not in name])
def test_odd_videos_are_the_same(tmp_path, outcome, name):
    path = tmp_path / name
    ODD[name][0](path)
    if path.is_file():
        is_at_once = [
            assert_same(outcome, path, View(frame_rate=rate, resize_size=64, crop_size=0))
            for rate in (1, 24)
        ]
        if name != "unreadable.mp4":  # root can read it
            assert any(is_at_once) == (name in AT_ONCE)


CODECS = {
    "x264.mp4": ("-c:v", "libx264", "-pix_fmt", "yuv420p"),
    "x264.mkv": ("-c:v", "libx264", "-pix_fmt", "yuv420p"),
    "bt709.mp4": ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-colorspace", "bt709"),
    "10_bit.mp4": ("-c:v", "libx264", "-pix_fmt", "yuv420p10le"),
    "hevc.mp4": ("-c:v", "libx265", "-pix_fmt", "yuv420p", "-x265-params", "log-level=none"),
    "vp8.webm": ("-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8"),
    "vp9.webm": ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8"),
    "av1.mp4": ("-c:v", "libsvtav1", "-preset", "13"),
}


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("clips")
    return {
        name: make_clip(folder / name, seconds=6, size="162x98", rate=30, codec=codec)
        for name, codec in CODECS.items()
    }


@pytest.mark.parametrize("name", CODECS)
def test_all_views_are_the_same_together(clips, outcome, name):
    assert assert_same(outcome, clips[name], *VIEWS)


@pytest.mark.parametrize("view", VIEWS)
def test_each_view_is_the_same_alone(clips, outcome, view):
    assert assert_same(outcome, clips["x264.mp4"], view)


def test_what_is_not_skipped_is_the_same(clips, outcome):
    assert assert_same(outcome, clips["x264.mp4"], VIEWS[0], skip_unused=False)


def test_real_videos_are_the_same(real_clips, outcome):
    for path in real_clips.values():
        assert assert_same(outcome, path, *VIEWS)


def test_what_the_libraries_were_not_compared_for_is_left_to_ffmpeg(clips, outcome, monkeypatch):
    path = clips["x264.mp4"]
    assert not assert_same(outcome, path, View(frame_rate="native", resize_size=64, crop_size=0))
    assert not assert_same(outcome, path, replace(VIEWS[0], num_frames=3))
    monkeypatch.setattr(short_videos, "FFMPEG_VERSION", "n9.0.3")
    assert not assert_same(outcome, path, VIEWS[0])
    monkeypatch.undo()
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", ffmpeg_path())
    assert not short_videos.is_known_ffmpeg()


def test_a_worker_of_another_libav_leaves_all_to_ffmpeg(clips, outcome, faulty_worker):
    faulty_worker("av.ffmpeg_version_info = '8.1.3'", "pass")
    assert not assert_same(outcome, clips["x264.mp4"], VIEWS[0])


@pytest.mark.parametrize("name", ["x264.mp4", "x264.mkv", "hevc.mp4", "vp9.webm", "av1.mp4"])
def test_damaged_files_are_the_same(clips, tmp_path, outcome, name):
    """Of what ffmpeg's program has the last word, it need not say the same twice: of much damage,
    its decoders for H.264 and HEVC do not."""
    is_at_once = []
    for seed, num in enumerate((1, 3, 30, 300)):
        content = bytearray(clips[name].read_bytes())
        random = np.random.default_rng(seed)
        for place in random.integers(len(content) // 20, len(content) * 4 // 5, num):
            content[place] ^= int(random.integers(1, 256))
        path = tmp_path / f"{seed}{name}"
        path.write_bytes(content)
        at_once = outcome(path, VIEWS[0], at_once=True)
        by_program = outcome(path, VIEWS[0], at_once=False)
        assert at_once.reason == by_program.reason
        is_at_once.append(not at_once.has_asked_ffmpeg)
        # Nobody can say that HEVC is damaged where its decoder does not; and the program decodes
        # some pictures, at both ends, which are skipped here, and may complain of those alone.
        if is_at_once[-1] and name != "hevc.mp4":
            assert at_once.clips == by_program.clips
    assert not all(is_at_once)


@pytest.mark.parametrize("part", [0.3, 0.9])
def test_files_that_were_cut_off_are_the_same(clips, tmp_path, outcome, part):
    path = tmp_path / "a.mkv"
    content = clips["x264.mkv"].read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    assert not assert_same(outcome, path, VIEWS[0])


FAULTY = """
import os, signal, sys, time
import av
from videofeatures.decoding import at_once, worker
decode = at_once.decode_at_once
{first}
def faulty(path, send, **options):
    num_sent = 0
    def sending(number, pixels):
        nonlocal num_sent
        send(number, pixels)
        num_sent += 1
        if num_sent == 2:
            {fault}
    return decode(path, sending, **options)
at_once.decode_at_once = faulty
worker.main()
"""


@pytest.fixture
def faulty_worker(tmp_path, monkeypatch):
    """Has workers do something first, and something else behind the second frame."""

    def make(first: str, fault: str) -> None:
        script = tmp_path / "faulty_worker.py"
        script.write_text(FAULTY.format(first=first, fault=fault))
        command = [sys.executable, "-P", str(script)]
        monkeypatch.setattr(worker_pool, "WORKER_COMMAND", command)

    return make


def decode_with_limits(path: Path, **settings: object) -> None:
    with FfmpegDecoder(Settings(**settings)) as decoder:
        source = Source(str(path))
        frames = decoder.frames(source, decoder.probe(source), VIEWS[:1], [Told()])
        for _ in range(2):
            next(frames)
        list(frames)


@pytest.mark.parametrize(
    ("fault", "error", "reason"),
    [
        ("time.sleep(1000)", NoAnswerError, "the decoder stopped answering for 1 s"),
        (
            "os.kill(os.getpid(), signal.SIGKILL)",
            MachineError,
            "the decoder was killed (signal 9): out of memory, it may be",
        ),
        ("bytearray(1 << 40)", MemoryLimitError, "decoding needs more than 300 MB of memory"),
        ("raise OSError(116, 'Stale file handle')", MachineError, "Stale file handle"),
    ],
)
def test_what_would_be_the_same_again_costs_one_row(clips, faulty_worker, fault, error, reason):
    faulty_worker("", fault)
    with pytest.raises(error) as raised:
        decode_with_limits(
            clips["x264.mp4"],
            decode_timeout_seconds=1 if error is NoAnswerError else 60,
            decoder_memory_mb=300,
        )
    assert raised.value.reason.startswith(reason)
    assert not [child for child in psutil.Process().children() if child.is_running()]


@pytest.mark.parametrize(
    "fault",
    [
        "os.kill(os.getpid(), signal.SIGSEGV)",
        "raise RuntimeError('nobody has thought of this')",
        "send(number + 7, pixels)",
        "send(number, pixels[:-3])",
        "at_once.av.logging.log(av.logging.ERROR, 'h264', 'concealing 7 errors')",
    ],
)
def test_of_all_else_ffmpeg_has_the_last_word(clips, outcome, faulty_worker, caplog, fault):
    caplog.set_level("INFO")
    faulty_worker("", fault)
    assert not assert_same(outcome, clips["x264.mp4"], VIEWS[0])
    (record,) = caplog.records
    assert ": decoded again, with nothing left out: " in record.getMessage()


def test_a_stop_ends_the_wait(clips, faulty_worker):
    faulty_worker("", "time.sleep(1000)")
    stopped = threading.Event()
    with FfmpegDecoder(Settings(), stopped=stopped) as decoder:
        source = Source(str(clips["x264.mp4"]))
        frames = decoder.frames(source, decoder.probe(source), VIEWS[:1], [Told()])
        threading.Timer(0.5, stopped.set).start()
        with pytest.raises(MachineError, match=r"^stopped$"):
            list(frames)


def test_who_wants_no_more_leaves_no_process_at_work(clips):
    with FfmpegDecoder(Settings()) as decoder:
        source = Source(str(clips["x264.mp4"]))
        metadata = decoder.probe(source)
        (asked,) = workers()
        frames = decoder.frames(source, metadata, VIEWS[:1], [Told()])
        next(frames)
        assert len(workers()) == 2
        frames.close()
        assert workers() == [asked]
        # The next one is decoded as if nothing had been.
        assert len(list(decoder.frames(source, metadata, VIEWS[:1], [Told()]))) == 6
    assert workers() == []


@pytest.mark.parametrize("folder", ["", "absolute"])
def test_a_way_back_out_of_a_link_is_the_system_s(tmp_path, outcome, monkeypatch, folder):
    (tmp_path / "far" / "away").mkdir(parents=True)
    make_clip(tmp_path / "far" / "a.mp4", seconds=3)
    make_clip(tmp_path / "a.mp4", seconds=2)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "away")
    monkeypatch.chdir(tmp_path)
    path = (tmp_path if folder else Path()) / "link" / ".." / "a.mp4"
    assert assert_same(outcome, path, VIEWS[0])
    assert len(outcome(path, VIEWS[0], at_once=True).clips[0]) == 3


def test_one_worker_decodes_one_video_after_the_other(clips):
    with FfmpegDecoder(Settings()) as decoder:
        seen = set()
        for name in ("x264.mp4", "x264.mkv", "hevc.mp4"):
            source = Source(str(clips[name]))
            list(Decoding(decoder, source, VIEWS[0]).clips())
            seen.update(worker.pid for worker in workers())
        assert len(seen) == 2  # one is asked, and one decodes, which gives way
        nice = [os.getpriority(os.PRIO_PROCESS, pid) for pid in seen]
        assert max(nice) == min(19, os.getpriority(os.PRIO_PROCESS, 0) + EXTRA_NICENESS)

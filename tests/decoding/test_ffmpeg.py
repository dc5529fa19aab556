"""ffmpeg's command line: how it runs, and what it says."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections import deque
from pathlib import Path

import ffmpeg as graphs
import pytest

from videofeatures.decoding import ffmpeg
from videofeatures.decoding.ffmpeg_decoder import FfmpegDecoder
from videofeatures.decoding.process import ReadTimeout
from videofeatures.errors import UserError, VideoError
from videofeatures.settings import Settings


@pytest.fixture
def fake_ffmpeg(tmp_path, monkeypatch):
    """Makes a shell script the ffmpeg that is run."""

    def make(script: str) -> None:
        path = tmp_path / "ffmpeg"
        path.unlink(missing_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(path))

    return make


def read_frames(**timeout: object) -> list:
    video = graphs.input("a").filter("scale", 2, 1)
    lines: deque[str] = deque(maxlen=20)
    return list(ffmpeg.read_frames(video, (2, 1), ReadTimeout(**timeout), lines))


def test_frames_are_cut_from_what_ffmpeg_writes(fake_ffmpeg):
    fake_ffmpeg("printf abcdef; printf ghijkl")
    assert [frame.tobytes() for frame in read_frames()] == [b"abcdef", b"ghijkl"]


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("printf abcdefg", "it ended with 0"),  # in the middle of a frame
        ("printf abcdef; exit 3", "it ended with 3"),
        ("kill -SEGV $$", "it ended with -11"),
        ("echo '[mov @ 0x12] [x @ 0x3] a cause' >&2; exit 1", "a cause"),
        ("echo 'Error opening input files: x' >&2; exit 1", "it ended with 1"),
    ],
)
def test_an_end_that_is_not_good_is_told(fake_ffmpeg, script, reason):
    fake_ffmpeg(script)
    with pytest.raises(VideoError) as error:
        read_frames()
    assert error.value.reason == f"ffmpeg failed: {reason}"


@pytest.mark.parametrize("script", ["sleep 60", "exec >&-; sleep 60", "printf abc; sleep 60"])
def test_an_ffmpeg_that_does_not_answer_or_end_is_killed(fake_ffmpeg, script):
    fake_ffmpeg(f"echo last words >&2; {script.replace('sleep', 'exec sleep')}")
    with pytest.raises(VideoError) as error:
        read_frames(timeout_seconds=0.5)
    assert error.value.reason == "the decoder stopped answering for 0.5 s"
    assert error.value.ffmpeg_lines == ["last words"]
    assert not children()


@pytest.mark.parametrize("script", ["exec sleep 60", "exec >&-; exec sleep 60"])
def test_a_stop_ends_the_wait_for_ffmpeg(fake_ffmpeg, script):
    fake_ffmpeg(script)
    stopped = threading.Event()
    threading.Timer(0.3, stopped.set).start()
    started = time.monotonic()
    with pytest.raises(VideoError, match=r"^stopped$"):
        read_frames(stopped=stopped)
    assert time.monotonic() - started < 20
    assert not children()


def children() -> list[str]:
    """Processes that this thread has started, and that are not gone."""
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


def test_many_messages_do_not_stop_ffmpeg(fake_ffmpeg):
    fake_ffmpeg("seq 100000 >&2; printf abcdef")
    assert len(read_frames(timeout_seconds=60)) == 1


def test_ffmpeg_gives_way(fake_ffmpeg):
    fake_ffmpeg("sleep 0.2; nice | tr -d '\\n' | head -c 1; printf abcde")
    (frame,) = read_frames()
    assert frame.tobytes()[:1] == b"1"  # 10 to 19


def test_the_cause_is_the_first_line_that_names_one():
    assert ffmpeg.find_cause([]) is None
    assert ffmpeg.find_cause(["", "[a @ 0x1] ", "Error opening input: x"]) is None
    assert ffmpeg.find_cause(["Conversion failed!", "[a @ 0x1] one", "two"]) == "one"
    assert ffmpeg.find_cause(["Protocol 'http' not on whitelist 'file'!"]) == ffmpeg.PLAYLIST


def test_what_ffmpeg_says_of_a_file_is_bounded(fake_ffmpeg, monkeypatch):
    fake_ffmpeg("seq 500 >&2; exec sleep 60")
    monkeypatch.setattr(ffmpeg, "EXPLAIN_TIMEOUT_SECONDS", 1)
    found = ffmpeg.explain_failure("a", local_files_only=True)
    assert found == [str(k) for k in range(1, 21)]


def test_the_version_is_that_of_the_ffmpeg_that_runs(fake_ffmpeg, tmp_path, monkeypatch):
    with FfmpegDecoder(Settings()) as decoder:
        assert decoder.version()
        fake_ffmpeg("echo ffmpeg version n1.2-x Copyright")
        assert decoder.version() == "n1.2-x"
        fake_ffmpeg("exit 1")
        with pytest.raises(UserError, match="is no ffmpeg that runs"):
            decoder.version()
        monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "nothing"))
        with pytest.raises(UserError, match="nothing: is no ffmpeg that runs"):
            decoder.version()


def test_a_device_is_taken_that_ffmpeg_can_use(fake_ffmpeg, monkeypatch):
    """With a stand-in for ffmpeg, which is aborted by one kind, and finds another."""
    fake_ffmpeg(
        'case "$*" in\n'
        '*"-init_hw_device cuda "*) exit 1;;\n'
        '*"-init_hw_device vaapi "*) kill -ABRT $$;;\n'
        '*"-init_hw_device qsv "*"nullsrc"*) exit 0;;\n'
        "esac\nexit 2"
    )
    find = ffmpeg.find_hwaccel.__wrapped__  # without what was found before
    assert find() == "qsv"
    fake_ffmpeg("exec sleep 60")
    monkeypatch.setattr(ffmpeg, "HWACCEL_TIMEOUT_SECONDS", 0.1)
    assert find() == "none"
    stopped = threading.Event()
    stopped.set()
    with pytest.raises(VideoError, match=r"^stopped$"):
        find(stopped)

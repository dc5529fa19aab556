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
from videofeatures.decoding.ffmpeg import FrameOutput
from videofeatures.decoding.ffmpeg_decoder import FfmpegDecoder
from videofeatures.decoding.process import MemoryLimitError, ReadTimeout
from videofeatures.errors import MachineError, UserError, VideoError
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
    output = FrameOutput(stream=video, size=(2, 1))
    return [frame for _, frame in ffmpeg.read_frames([output], ReadTimeout(**timeout), lines)]


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


# Not HUP, which is ignored where these tests run under `nohup`.
@pytest.mark.parametrize("name", ["KILL", "TERM", "USR1"])
def test_who_has_killed_ffmpeg_was_not_the_video(fake_ffmpeg, name):
    fake_ffmpeg(f"printf abcdef; kill -{name} $$")
    with pytest.raises(MachineError, match=r"^ffmpeg was killed \(signal \d+\): out of memory"):
        read_frames()


@pytest.mark.parametrize("end", ["exit 0", "exit 1", "kill -SEGV $$", "exec sleep 60"])
def test_an_ffmpeg_that_lacks_memory_is_ended_and_told(fake_ffmpeg, end):
    fake_ffmpeg(f"printf abcdef; echo '[h264 @ 0x1] [error] Cannot allocate memory' >&2; {end}")
    with pytest.raises(MemoryLimitError) as error:
        read_frames()
    assert error.value.reason.startswith("decoding needs more than 1000 MB of memory")
    assert error.value.ffmpeg_lines == ["[h264 @ 0x1] Cannot allocate memory"]


def test_a_crash_where_there_is_no_frame_is_an_end(fake_ffmpeg):
    warning = "[fc#0 @ 0x1] [vo0->fg:1:0 @ 0x2] [warning] No filtered frames for output stream, x"
    fake_ffmpeg(f"echo '{warning}' >&2; kill -SEGV $$")
    assert read_frames() == []
    fake_ffmpeg(f"printf abc; echo '{warning}' >&2; kill -SEGV $$")
    with pytest.raises(VideoError):
        read_frames()


def test_whether_graphs_can_be_chained_is_tried(fake_ffmpeg):
    can_chain = ffmpeg.can_chain_graphs.__wrapped__  # without what was found before
    assert can_chain()
    fake_ffmpeg('test "$(echo "$*" | grep -o filter_complex | wc -l)" = 1')
    assert not can_chain()


def test_how_frames_are_passed_through_is_tried(fake_ffmpeg):
    option = ffmpeg.passthrough_option.__wrapped__  # without what was found before
    assert option() == {"fps_mode": "passthrough"}
    fake_ffmpeg('for each; do test "$each" != -fps_mode || exit 1; done')
    assert option() == {"vsync": "passthrough"}


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
    said = "[fc#0 @ 0x1] Stream map 'v:0' matches no streams."
    assert ffmpeg.find_cause([said]) == ffmpeg.NO_VIDEO
    assert ffmpeg.find_cause(["Protocol 'http' not on whitelist 'file'!"]) == ffmpeg.PLAYLIST


def test_what_ffmpeg_says_of_a_file_is_bounded(fake_ffmpeg, monkeypatch):
    fake_ffmpeg("seq 500 >&2; exec sleep 60")
    monkeypatch.setattr(ffmpeg, "EXPLAIN_TIMEOUT_SECONDS", 1)
    found = ffmpeg.explain_failure("a", local_files_only=True)
    assert found == [str(k) for k in range(1, 21)]


def test_the_version_is_that_of_the_ffmpeg_that_runs(fake_ffmpeg):
    with FfmpegDecoder(Settings()) as decoder:
        assert decoder.version()
        fake_ffmpeg("echo ffmpeg version n1.2-x Copyright")
        assert decoder.version() == "n1.2-x"


@pytest.mark.parametrize(
    ("script", "why"),
    [("exit 1", "it ended with 1"), ("echo hi", "it says 'hi"), ("sleep 60", "no answer in 1 s")],
)
def test_a_program_that_is_no_ffmpeg_is_named(fake_ffmpeg, monkeypatch, script, why):
    fake_ffmpeg(script)
    monkeypatch.setattr(ffmpeg, "ASK_TIMEOUT_SECONDS", 1)
    with pytest.raises(UserError, match=rf"ffmpeg: is no ffmpeg that runs \({why}"):
        ffmpeg.ffmpeg_version()


@pytest.mark.parametrize("is_there", [True, False])
def test_an_ffmpeg_that_cannot_be_started_is_named_wherever_it_is_asked(
    tmp_path, monkeypatch, is_there
):
    path = tmp_path / "nothing"
    if is_there:
        path.write_text("#!/bin/sh\n")
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(path))
    why = "it cannot be executed" if is_there else "no such file"
    for ask in (
        ffmpeg.ffmpeg_version,
        ffmpeg.find_codecs,
        lambda: ffmpeg.explain_failure("a", local_files_only=True),
        read_frames,
    ):
        with pytest.raises(UserError, match=rf"nothing: is no ffmpeg that runs \({why}\)"):
            ask()

"""Whatever a source does to ffmpeg or to libav, it costs one row."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import deque
from fractions import Fraction
from pathlib import Path

import pytest

from conftest import ROOT, make_clip
from decoding.faulty_videos import make_faulty_videos, workers
from videofeatures.decoding.decoder import VideoMetadata
from videofeatures.decoding.ffmpeg_decoder import FfmpegDecoder
from videofeatures.decoding.view import View
from videofeatures.errors import VideoError
from videofeatures.settings import Settings
from videofeatures.source import Source

VIEW = View(frame_rate=1, resize_size=32, crop_size=0)
METADATA = VideoMetadata(64, 48, Fraction(1), 100.0, 25.0, "h264")


@pytest.fixture
def videos(tmp_path, monkeypatch) -> dict[str, str]:
    return make_faulty_videos(tmp_path, monkeypatch)


QUESTIONS = {
    "probe": lambda decoder, source: decoder.probe(source),
    "frames": lambda decoder, source: list(decoder.frames(source, METADATA, VIEW, deque())),
    "find_truncation": lambda decoder, source: decoder.find_truncation(source, METADATA, VIEW, 1),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_crash_costs_one_row(videos, question):
    with FfmpegDecoder(Settings(skip_unused=True)) as decoder:
        with pytest.raises(VideoError) as error:
            QUESTIONS[question](decoder, Source(videos["crash"]))
        assert error.value.reason == f"the decoder crashed (signal {int(signal.SIGSEGV)})"
        assert error.value.ffmpeg_lines == ["last words"]
        assert workers() == []
        assert decoder.probe(Source(videos["good"])).width == 64


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_hang_costs_one_row(videos, question):
    with FfmpegDecoder(Settings(skip_unused=True, decode_timeout_seconds=1)) as decoder:
        with pytest.raises(VideoError) as error:
            QUESTIONS[question](decoder, Source(videos["hang"]))
        assert error.value.reason == "the decoder stopped answering for 1 s"
        assert workers() == []


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_stop_ends_the_wait(videos, question):
    stopped = threading.Event()
    with FfmpegDecoder(Settings(skip_unused=True), stopped=stopped) as decoder:
        threading.Timer(0.5, stopped.set).start()
        started = time.monotonic()
        with pytest.raises(VideoError, match=r"^stopped$"):
            QUESTIONS[question](decoder, Source(videos["hang"]))
        assert time.monotonic() - started < 20
        assert workers() == []


def test_libav_is_loaded_where_it_is_used_and_nothing_else_is(tmp_path):
    script = """
        import sys
        from videofeatures.decoding.clips import Decoding
        from videofeatures.decoding.ffmpeg_decoder import FfmpegDecoder
        from videofeatures.decoding.view import View
        from videofeatures.settings import Settings
        from videofeatures.source import Source
        view = View(frame_rate=1, resize_size=32, crop_size=0)
        decoder = FfmpegDecoder(Settings(skip_unused=True))
        print(len(list(Decoding(decoder, Source(sys.argv[1]), view).clips())))
        print(*sorted({"av", "torch", "pandas"} & set(sys.modules)))
    """
    path = make_clip(tmp_path / "a.mp4")
    environment = os.environ | {"PYTHONPATH": str(ROOT / "scripts")}
    command = [sys.executable, "-c", textwrap.dedent(script), str(path)]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["2"]
    with FfmpegDecoder(Settings()) as decoder:
        decoder.probe(Source(str(path)))
        (worker,) = workers()
        maps = Path(f"/proc/{worker.pid}/maps").read_text()
    assert "libavcodec" in maps
    assert not [name for name in ("torch", "numpy", "pandas") if f"/{name}/" in maps]

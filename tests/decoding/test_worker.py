"""What a worker reads and writes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from conftest import ROOT, make_clip
from videofeatures.decoding.worker import ALIVE_SECONDS, FUNCTIONS, _Alive


@pytest.fixture
def worker():
    """A worker, and nobody but the test at its pipes."""
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    environment = os.environ | {"PYTHONPATH": str(ROOT / "scripts")}
    command = [sys.executable, "-m", "videofeatures.decoding.worker"]
    with subprocess.Popen(command, env=environment, **pipes) as process:
        yield process
        process.kill()


def request(function: str, path: object, **arguments: object) -> bytes:
    arguments |= {"path": str(path), "local_files_only": True}
    return json.dumps({"function": function, "arguments": arguments}).encode() + b"\n"


def ask(worker: subprocess.Popen, function: str, path: object, **arguments: object) -> object:
    worker.stdin.write(request(function, path, **arguments))
    worker.stdin.flush()
    while not (line := worker.stdout.readline().strip()):  # it is still reading packets
        pass
    return json.loads(line)


def test_requests_are_answered_in_json_and_the_end_of_input_is_the_end(worker, tmp_path):
    path = make_clip(tmp_path / "a.mp4", seconds=3)
    assert ask(worker, "read_duration", path) == {"result": 3.0}
    metadata = {
        "width": 320,
        "height": 240,
        "sample_aspect_ratio": "1",
        "duration_seconds": 3.0,
        "average_fps": 25.0,
        "codec": "h264",
        "pixel_format": "yuv420p",
        "display_matrix": None,
        "container": "mov",
    }
    assert ask(worker, "probe_video", path) == {"result": metadata}
    landing = {"tick": "1/12800", "seconds": "0", "key_ticks": None, "is_open": False}
    assert ask(worker, "find_landing", path, start_seconds=2.5) == {"result": landing}
    found = ask(worker, "look_at_packets", path, frame_rates=[24])["result"]
    assert (found["num_packets"], found["end_seconds"], found["packet_filter"]) == (75, 3.0, None)
    assert ask(worker, "probe_video", tmp_path) == {"error": "is a folder"}
    (tmp_path / "text.mp4").write_text("text")
    general = "Invalid data found when processing input"
    assert ask(worker, "probe_video", tmp_path / "text.mp4") == {"libav_error": general}
    assert worker.communicate()[0] == b""
    assert worker.returncode == 0


def test_all_that_can_be_asked_is_known(worker, tmp_path):
    assert set(FUNCTIONS) == {
        "probe_video",
        "read_duration",
        "find_landing",
        "look_at_packets",
        "decode_at_once",
    }
    worker.stdin.write(request("system", "/"))
    worker.stdin.flush()
    assert worker.wait(60) == 1
    assert worker.stderr.read().endswith(b"KeyError: 'system'\n")


def test_libav_s_messages_go_to_its_standard_error(worker, tmp_path):
    (tmp_path / "text.mp4").write_text("text")
    ask(worker, "probe_video", tmp_path / "text.mp4")
    assert b"moov atom not found" in worker.communicate()[1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_of_the_whole_job_do_not_end_it(worker, tmp_path, number):
    path = make_clip(tmp_path / "a.mp4", seconds=3)
    assert ask(worker, "read_duration", path) == {"result": 3.0}
    worker.send_signal(number)
    assert ask(worker, "read_duration", path) == {"result": 3.0}
    assert worker.communicate() == (b"", b"")


def test_a_sign_of_life_is_given_now_and_then(monkeypatch):
    now = 100.0
    monkeypatch.setattr("videofeatures.decoding.worker.time.monotonic", lambda: now)
    receiver, sender = os.pipe()
    alive = _Alive(sender)
    for _ in range(3):
        alive()
        alive()
        now += ALIVE_SECONDS
    os.close(sender)
    with open(receiver, "rb") as file:
        assert file.read() == b"\n\n\n"

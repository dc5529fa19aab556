"""Whatever a file does to libav, it costs one call, and no process is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import psutil
import pytest

from conftest import ROOT, make_clip, start_session, wait_for
from decoding.faulty_videos import has_ended, make_faulty_videos, workers
from videofeatures.decoding import worker_pool
from videofeatures.decoding.decoder import VideoMetadata
from videofeatures.decoding.libav import Libav
from videofeatures.decoding.process import ReadTimeout
from videofeatures.errors import VideoError

METADATA = VideoMetadata(64, 48, Fraction(1), 100.0, 25.0, "h264")


@pytest.fixture
def videos(tmp_path, monkeypatch) -> dict[str, str]:
    return make_faulty_videos(tmp_path, monkeypatch)


@pytest.fixture
def libav():
    with Libav(ReadTimeout(60)) as libav:
        yield libav


def test_one_worker_answers_all_that_a_thread_asks(videos, libav):
    assert libav.read_duration(videos["good"]) == 2
    (first,) = workers()
    assert libav.read_duration(videos["other"]) == 3
    assert libav.probe_video(videos["good"]).codec == "h264"
    with pytest.raises(VideoError, match="no such file"):
        libav.probe_video("nothing.mp4")
    assert libav.look_at_packets(videos["good"], [1.0]).num_packets == 50
    assert workers() == [first]
    libav.close()
    assert has_ended(first)


def test_an_exception_that_nobody_has_thought_of_is_told(videos, libav):
    with pytest.raises(VideoError, match=r"^the decoder crashed \(exit status 1\)$") as error:
        libav.probe_video(videos["abort"])
    assert error.value.ffmpeg_lines[-1] == "RuntimeError: nobody has thought of this"
    assert libav.read_duration(videos["good"]) == 2


def test_a_library_that_cannot_be_loaded_is_told(tmp_path, monkeypatch, libav):
    (tmp_path / "av.py").write_text("raise ImportError('libav is not at home')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(VideoError, match=r"^the decoder crashed \(exit status 1\)$") as error:
        libav.probe_video("a.mp4")
    assert error.value.ffmpeg_lines[-1] == "ImportError: libav is not at home"


def test_nothing_is_imported_from_the_folder_where_it_runs(tmp_path, monkeypatch, libav):
    path = str(make_clip(tmp_path / "a.mp4"))
    for name in ("av", "json", "videofeatures"):
        (tmp_path / f"{name}.py").write_text("raise ImportError")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.chdir(tmp_path)
    assert libav.read_duration(path) == 2


def test_what_a_library_prints_is_no_answer(videos, libav):
    assert [libav.read_duration(videos["chatty"]) for _ in range(2)] == [2, 2]


def test_a_worker_that_died_while_idle_costs_nothing(videos, libav):
    look = os.WEXITED | os.WNOHANG | os.WNOWAIT  # its end is still there for the pool to see
    for _ in range(2):
        assert libav.read_duration(videos["good"]) == 2
        (worker,) = workers()
        worker.kill()
        wait_for(lambda pid=worker.pid: os.waitid(os.P_PID, pid, look))


def test_many_threads_get_each_their_own_answer(videos):
    expected = {
        "good": 2,
        "other": 3,
        "crash": "the decoder crashed (signal 11)",
        "hang": "the decoder stopped answering for 10 s",
        "nothing": "no such file",
    }
    videos["nothing"] = "nothing.mp4"
    names = (["good", "other", "nothing"] * 20 + ["crash", "hang"]) * 2

    def ask(name: str) -> object:
        try:
            return libav.read_duration(videos[name])
        except VideoError as error:
            return error.reason

    with Libav(ReadTimeout(10)) as libav:
        with ThreadPoolExecutor(6) as threads:
            assert list(threads.map(ask, names)) == [expected[name] for name in names]
        assert 1 <= len(workers()) <= 6
    assert workers() == []


NONSENSE = {
    "no JSON": b"hello",
    "no object": b"[1]",
    "a number": b"5",
    "no result": b'{"answer": 1}',
    "a text for a number": b'{"result": "two"}',
    "an object for a number": b'{"result": {"a": 1}}',
    "two answers": b'{"result": 1}\n{"result": 2}',
    "not UTF-8": b'{"result": "\xff"}',
    "deep": b"[" * 100_000,
    "without an end": b"x" * (2 << 20),
}


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_costs_one_row(tmp_path, monkeypatch, libav, name):
    (tmp_path / "answer").write_bytes(NONSENSE[name] + b"\n")
    script = "head -n 1 > /dev/null; cat answer; exec sleep 600"
    monkeypatch.setattr(worker_pool, "WORKER_COMMAND", ["sh", "-c", script])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(VideoError, match=r"^the decoder answered nonsense$"):
        libav.read_duration("a.mp4")
    assert psutil.Process().children() == []


def test_a_file_that_takes_its_time_is_no_hang(monkeypatch):
    script = """
        import sys, time
        sys.stdin.readline()
        for _ in range(14):
            time.sleep(0.5)
            print(flush=True)
        print('{"result": 7}', flush=True)
        sys.stdin.read()
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    monkeypatch.setattr(worker_pool, "WORKER_COMMAND", command)
    stopped = threading.Event()
    with Libav(ReadTimeout(5, stopped)) as libav:
        assert libav.read_duration("a.mp4") == 7
    # But a stop is one, however lively the worker is.
    with Libav(ReadTimeout(5, stopped)) as libav:
        threading.Timer(1, stopped.set).start()
        with pytest.raises(VideoError, match=r"^stopped$"):
            libav.read_duration("a.mp4")


def test_closing_does_not_wait_for_one_that_hangs(videos):
    libav = Libav(ReadTimeout(600))
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(libav.read_duration, videos["hang"])
        wait_for(workers)
        libav.close()
        with pytest.raises(VideoError, match=r"^stopped$"):
            answer.result(60)
    assert workers() == []
    with pytest.raises(VideoError, match=r"^stopped$"):
        libav.read_duration(videos["good"])


def test_a_pool_that_is_forgotten_leaves_no_process(videos):
    libav = Libav(ReadTimeout(60))
    libav.read_duration(videos["good"])
    (worker,) = workers()
    del libav
    wait_for(lambda: has_ended(worker))


JOB = """
import os, signal, sys, threading
from videofeatures.decoding.libav import Libav
from videofeatures.decoding.process import ReadTimeout
if "TEST_IGNORES_SIGNALS" in os.environ:
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: None)
threading.excepthook = lambda _: None  # of a read that the end of all cuts off
libav = Libav(ReadTimeout(600))
for path in sys.argv[2:]:
    threading.Thread(target=libav.read_duration, args=[path], daemon=True).start()
libav.read_duration(sys.argv[1])
print("ready", flush=True)
for line in sys.stdin:
    print(libav.read_duration(sys.argv[1]), flush=True)
"""


def start_job(folder: Path, *arguments: str) -> subprocess.Popen:
    paths = [str(ROOT / "scripts"), os.environ["PYTHONPATH"]]
    job = start_session(
        [sys.executable, "-c", JOB, *arguments],
        folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert job.stdout.readline() == b"ready\n"
    return job


def test_nothing_is_left_of_a_job_that_is_killed(tmp_path, videos):
    # One that waits for work, one that hangs, and one that libav itself is busy in.
    sparse = tmp_path / "sparse.mkv"
    content = make_clip(tmp_path / "a.mkv").read_bytes()[:200]
    with open(sparse, "wb") as file:
        file.write(content)
        file.truncate(1 << 42)  # of zeros: some hours
    job = start_job(tmp_path, videos["good"], videos["hang"], str(sparse))
    wait_for(lambda: len(workers(job.pid)) == 3)
    time.sleep(1)
    found = workers(job.pid)
    assert len(found) == 3
    job.kill()
    job.communicate()
    wait_for(lambda: all(has_ended(worker) for worker in found), seconds=30)


def test_nothing_is_left_of_a_job_that_ends(tmp_path, videos):
    job = start_job(tmp_path, videos["good"], videos["hang"])
    wait_for(lambda: len(workers(job.pid)) == 2)
    found = workers(job.pid)
    assert job.communicate() == (b"", b"")
    assert job.returncode == 0
    wait_for(lambda: all(has_ended(worker) for worker in found), seconds=30)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_is_left_to_the_job(tmp_path, videos, monkeypatch, number):
    monkeypatch.setenv("TEST_IGNORES_SIGNALS", "1")
    job = start_job(tmp_path, videos["good"])
    (worker,) = workers(job.pid)
    os.killpg(job.pid, number)
    time.sleep(0.5)
    assert workers(job.pid) == [worker]
    assert job.communicate(b"again\n") == (b"2.0\n", b"")


def test_a_job_that_a_signal_ends_says_what_it_says_alone(tmp_path, videos):
    job = start_job(tmp_path, videos["good"], videos["hang"])
    wait_for(lambda: len(workers(job.pid)) == 2)
    found = workers(job.pid)
    os.killpg(job.pid, signal.SIGINT)
    _, stderr = job.communicate()
    assert stderr.count(b"Traceback") == stderr.count(b"KeyboardInterrupt") == 1
    wait_for(lambda: all(has_ended(worker) for worker in found), seconds=30)

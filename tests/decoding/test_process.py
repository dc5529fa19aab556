"""A process is read under a time limit, and is gone when it is left."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import deque
from pathlib import Path

import pytest

from videofeatures.decoding.process import ChildProcess, NoAnswerError, ReadTimeout
from videofeatures.decoding.tally import Tally
from videofeatures.errors import VideoError


def start(script: str, timeout: ReadTimeout | None = None, **options: bool) -> ChildProcess:
    return ChildProcess(
        ["sh", "-c", script], timeout or ReadTimeout(60), deque(maxlen=3), **options
    )


def test_what_is_ready_is_not_waited_for():
    ReadTimeout(60).wait(lambda seconds: True)
    ReadTimeout().wait(lambda seconds: True)


def test_the_limit_is_waited_for_in_steps():
    steps: list[float] = []
    with pytest.raises(NoAnswerError, match=r"^the decoder stopped answering for 2\.5 s$"):
        ReadTimeout(2.5).wait(steps.append)
    assert steps == [1, 1, 0.5]


def test_a_sign_of_life_starts_the_time_anew():
    steps: list[float] = []
    with pytest.raises(NoAnswerError):
        ReadTimeout(2.5).wait(steps.append, lambda: min(len(steps), 4))
    assert steps == [1, 1, 1, 1, 1, 1, 0.5]


def test_without_a_limit_only_a_stop_ends_a_wait():
    stopped = threading.Event()
    steps: list[float] = []

    def is_ready(seconds: float) -> bool:
        steps.append(seconds)
        if len(steps) == 1000:
            stopped.set()
        return False

    with pytest.raises(VideoError, match=r"^stopped$"):
        ReadTimeout(None, stopped).wait(is_ready)
    assert len(steps) == 1000


def test_time_in_which_this_process_is_suspended_does_not_count():
    script = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parents[2] / "scripts")!r})
from collections import deque
from videofeatures.decoding.process import ChildProcess, ReadTimeout
process = ChildProcess(["sh", "-c", "sleep 2.5; echo good"], ReadTimeout(4), deque())
print("waits", flush=True)
print(process.read_some(100))
"""
    with ChildProcess([sys.executable, "-c", script], ReadTimeout(60), deque()) as process:
        assert read(process, 6) == b"waits\n"
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(5)
        os.kill(process.pid, signal.SIGCONT)
        assert read(process, 10) == b"b'good\\n'\n"


def read_into(process: ChildProcess, buffer: bytearray) -> int:
    """How many bytes it gets: fewer only at the output's end."""
    num_bytes = 0
    while num_bytes < len(buffer) and process.wait_for_outputs():
        num_bytes += process.read_part(0, memoryview(buffer)[num_bytes:])
    return num_bytes


def read(process: ChildProcess, num_bytes: int) -> bytes:
    buffer = bytearray(num_bytes)
    return bytes(buffer[: read_into(process, buffer)])


def test_a_buffer_is_filled_by_several_reads():
    buffer = bytearray(5)
    with start("printf ab; sleep 0.1; printf cdefg") as process:
        assert read_into(process, buffer) == 5
        assert buffer == b"abcde"
        assert read_into(process, buffer) == 2
        assert read_into(process, buffer) == 0
        assert process.wait() == 0


def test_it_reads_what_is_written_or_nothing():
    with start("cat", has_stdin=True) as process:
        process.write(b"hello")
        assert process.read_some(100) == b"hello"
    with start("cat") as process:
        assert process.read_some(100) == b""


def test_the_last_lines_of_its_messages_are_kept():
    with start("seq 1000 >&2; exit 7") as process:
        assert process.wait() == 7
        assert list(process.stderr_lines) == ["998", "999", "1000"]


def test_its_end_can_be_a_signal():
    with start("kill -SEGV $$") as process:
        assert process.wait() == -signal.SIGSEGV
        assert not process.is_alive


def test_it_is_gone_when_it_is_left():
    with start("trap '' TERM INT; exec sleep 60") as process:
        assert process.is_alive
    assert not Path(f"/proc/{process.pid}").exists()
    process.close()  # once more does nothing


def test_one_that_says_that_it_is_at_work_is_waited_for():
    shown = "[Parsed_showinfo_0 @ 0x1] [info] n:   0 pts:      0 pts_time:0 "
    says = f"for k in 1 2 3 4 5 6; do sleep 0.5; echo '{shown}' >&2; done; echo good"
    with start(says, ReadTimeout(1.5), listener=Tally()) as process:
        assert read(process, 5) == b"good\n"
    with (
        pytest.raises(NoAnswerError),
        start(says.replace("pts_time", "else"), ReadTimeout(1.5), listener=Tally()) as process,
    ):
        read(process, 5)


def test_what_was_said_before_it_went_silent_is_told():
    with (
        pytest.raises(NoAnswerError) as error,
        start("echo words >&2; exec sleep 60", ReadTimeout(1)) as process,
    ):
        process.read_some(1)
    assert error.value.ffmpeg_lines == ["words"]


def test_what_cannot_be_started_is_an_error_of_the_system(tmp_path):
    with pytest.raises(FileNotFoundError):
        ChildProcess([str(tmp_path / "nothing")], ReadTimeout(1), deque())


@pytest.mark.parametrize(("limit_mb", "status"), [(100, 1), (400, 0), (None, 0)])
def test_memory_is_bounded(limit_mb, status):
    # Its memory is looked at when it speaks, if it is still there then.
    speaks = "print('up', file=sys.stderr, flush=True)"
    script = f"import sys, time; time.sleep(0.5); {speaks}; time.sleep(2); bytearray(200 << 20)"
    with ChildProcess(
        [sys.executable, "-c", script],
        ReadTimeout(60),
        deque(maxlen=3),
        memory_bytes=limit_mb and limit_mb << 20,
    ) as process:
        assert process.wait() == status
    assert process.peak_memory_bytes > 1 << 20
    assert (process.stderr_lines[-1] == "MemoryError") is bool(status)


def test_a_listener_is_told_first_and_may_end_it():
    tally = Tally()
    says = "[info] a\n[error] b\n[error] Cannot allocate memory\n"
    with start(f"printf '{says}' >&2; exec sleep 60", listener=tally) as process:
        assert process.wait() == -signal.SIGKILL
    assert list(process.stderr_lines) == ["b", "Cannot allocate memory"]

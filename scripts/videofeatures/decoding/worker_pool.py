"""Worker processes, each of which answers one thread at a time.

They are kept: one for each file would be dear where clips are short. Measured on two cores:
to start one takes 0.09 s, of wall time and of a core (0.06 s of them to import PyAV); to ask one,
0.1 ms more than libav itself takes, which is 2.5 ms to probe an MP4 of 320×240, and 1.1 ms to read
its header alone. One has 12 MB of memory to itself, and 22 MB after `skip_filter`, for NumPy.

They keep this process's priority, unlike ffmpeg: what they do is short, and all of a decoder waits
for it. With seven other processes on its core, one started in 0.7 s, and in 6 s if it gave way.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, TypeVar

from videofeatures.decoding.process import (
    DEFAULT_MEMORY_BYTES,
    LAST_SECONDS,
    NUM_STDERR_LINES,
    ChildProcess,
    MemoryLimitError,
    NoAnswerError,
    ReadTimeout,
)
from videofeatures.errors import VIDEO_SIGNALS, MachineError, VideoError

# -P: nothing is imported from the folder that it is started in.
WORKER_COMMAND = [sys.executable, "-P", "-m", "videofeatures.decoding.worker"]

PACKAGE_FOLDER = Path(__file__).parents[2]
"""Where a worker finds this package, which is not installed."""

MAX_ANSWER_BYTES = 1 << 20
"""More than any answer has: the longest, of `skip_filter`, is an argument of a process."""

NONSENSE = (ArithmeticError, LookupError, RecursionError, TypeError, ValueError)
"""What reading an answer raises that is not one."""

Result = TypeVar("Result")


class LibavError(VideoError):
    """libav cannot read a file; the reason is what it says."""


class WorkerPool:
    """Calls the functions of `worker`, for several threads at a time.

    A worker is started when a thread needs one and none is idle. One that crashes, does not
    answer, or answers nonsense, is killed. As a context manager, all are ended when it is left;
    without, they end by themselves with the pool, or with this process, whatever ends it.
    """

    def __init__(
        self, read_timeout: ReadTimeout, *, memory_bytes: int | None = DEFAULT_MEMORY_BYTES
    ):
        """Start nothing yet.

        Args:
            read_timeout: how long a call may go without a sign of life.
            memory_bytes: that a worker may take: see `ChildProcess`.
        """
        self._read_timeout = read_timeout
        self._memory_bytes = memory_bytes
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._busy: set[_Worker] = set()
        self._is_closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all workers, without waiting for those that do not answer.

        Threads that wait for one are told that it was stopped.
        """
        with self._lock:
            self._is_closed = True
            for worker in self._busy:
                worker.kill()
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.close()

    def call(self, function: str, parse: Callable[[Any], Result], **arguments: Any) -> Result:
        """Return what a function returns.

        Args:
            function: a name of `worker.FUNCTIONS`.
            parse: makes the result from JSON's values; raises what conversions raise if it cannot.
            arguments: of the function; JSON has to know them.

        Raises:
            LibavError: libav cannot read the file.
            MemoryLimitError: the worker would need more memory.
            VideoError: the function says why it cannot; or the worker crashed, answered nonsense,
                did not answer, or was stopped.
            OSError: no worker can be started.
        """
        request = json.dumps({"function": function, "arguments": arguments}).encode() + b"\n"
        worker = self._take()
        try:
            outcome = worker.ask(request, parse)
        except BaseException:
            with self._lock:
                self._busy.discard(worker)
            worker.close()
            if self._is_closed:
                raise MachineError("stopped") from None
            raise
        self._give_back(worker)
        if isinstance(outcome, VideoError):
            raise outcome
        return outcome

    def _take(self) -> _Worker:
        dead = []
        try:
            while True:
                with self._lock:
                    if self._is_closed:
                        raise MachineError("stopped")
                    if not self._idle:
                        break
                    worker = self._idle.pop()
                    if worker.is_alive:
                        self._busy.add(worker)
                        return worker
                dead.append(worker)
        finally:
            for worker in dead:
                worker.close()
        worker = _Worker(self._read_timeout, self._memory_bytes)
        with self._lock:
            if not self._is_closed:
                self._busy.add(worker)
                return worker
        worker.close()
        raise MachineError("stopped")

    def _give_back(self, worker: _Worker) -> None:
        with self._lock:
            self._busy.discard(worker)
            if not self._is_closed:
                self._idle.append(worker)
                return
        worker.close()


class _Worker(ChildProcess):
    """One worker process."""

    def __init__(self, read_timeout: ReadTimeout, memory_bytes: int | None):
        self._memory_bytes = memory_bytes
        folders = [str(PACKAGE_FOLDER), os.environ.get("PYTHONPATH", "")]
        super().__init__(
            WORKER_COMMAND,
            read_timeout,
            deque(maxlen=NUM_STDERR_LINES),
            has_stdin=True,
            memory_bytes=memory_bytes,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, folders))},
        )

    def ask(self, request: bytes, parse: Callable[[Any], Result]) -> Result | VideoError:
        """Return what a request gives, or the error that its function has raised.

        Raises:
            VideoError: the worker is of no use any more.
        """
        self.stderr_lines.clear()
        answer = b""
        try:
            self.write(request)
            while not answer.endswith(b"\n"):
                part = self.read_some(MAX_ANSWER_BYTES)
                if not part:
                    raise self._crash()
                answer = (answer + part).lstrip(b"\n")  # blank lines say that it goes on
                if len(answer) > MAX_ANSWER_BYTES:
                    raise ValueError("too long")
            outcome = _parse_answer(answer, parse, self._memory_bytes)
        except BrokenPipeError:
            raise self._crash() from None
        except NONSENSE as error:
            raise VideoError("the decoder answered nonsense", self.stderr_lines) from error
        if isinstance(outcome, MemoryLimitError):  # what it has left may be in pieces
            raise outcome
        return outcome

    def _crash(self) -> VideoError:
        try:
            status = self.wait(ReadTimeout(LAST_SECONDS))
        except NoAnswerError:
            return VideoError("the decoder closed its output", self.stderr_lines)
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        if status < 0 and -status not in VIDEO_SIGNALS:
            reason = f"the decoder was killed ({how}): out of memory, it may be"
            return MachineError(reason, self.stderr_lines)
        return VideoError(f"the decoder crashed ({how})", self.stderr_lines)


def _parse_answer(
    line: bytes, parse: Callable[[Any], Result], memory_bytes: int | None
) -> Result | VideoError:
    answer = json.loads(line)
    if "lacks_memory" in answer:
        if memory_bytes is None:
            return MachineError("out of memory")
        return MemoryLimitError(memory_bytes)
    if "libav_error" in answer:
        return LibavError(str(answer["libav_error"]))
    if "machine_error" in answer:
        return MachineError(str(answer["machine_error"]))
    if "error" in answer:
        return VideoError(str(answer["error"]))
    return parse(answer["result"])

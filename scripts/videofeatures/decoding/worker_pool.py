"""Worker processes, each of which answers one thread at a time.

They are kept: one for each file would be dear where clips are short. Measured on two cores:
to start one takes 0.09 s, of wall time and of a core (0.06 s of them to import PyAV); to ask one,
0.1 ms more than libav itself takes, which is 2.5 ms to probe an MP4 of 320×240, and 1.1 ms to read
its header alone. One has 12 MB of memory to itself, and 22 MB after `look_at_packets`, for NumPy.

They keep this process's priority, unlike ffmpeg: what they do is short, and all of a decoder waits
for it. With seven other processes on its core, one started in 0.7 s, and in 6 s if it gave way.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

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

if TYPE_CHECKING:
    import numpy as np

# -P: nothing is imported from the folder that it is started in.
WORKER_COMMAND = [sys.executable, "-P", "-m", "videofeatures.decoding.worker"]

PACKAGE_FOLDER = Path(__file__).parents[2]
"""Where a worker finds this package, which is not installed."""

MAX_ANSWER_BYTES = 1 << 20
"""More than any answer has: the longest, of `look_at_packets`, has an argument of a process."""

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
        self,
        read_timeout: ReadTimeout,
        *,
        local_files_only: bool = True,
        memory_bytes: int | None = DEFAULT_MEMORY_BYTES,
        extra_niceness: int = 0,
        pipe_bytes: int | None = None,
    ):
        """Start nothing yet.

        Args:
            read_timeout: how long a call may go without a sign of life.
            local_files_only: see `input_options`.
            memory_bytes, extra_niceness, pipe_bytes: of a worker: see `ChildProcess`.
        """
        self._read_timeout = read_timeout
        self._local_files_only = local_files_only
        self._options = {"extra_niceness": extra_niceness, "pipe_bytes": pipe_bytes}
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

    def file_arguments(self, path: str) -> dict[str, Any]:
        """Return the arguments that name a file to a function of a worker."""
        if not os.path.isabs(path):  # a worker stays in the folder that it was started in
            path = os.path.join(os.getcwd(), path)
        return {"path": path, "local_files_only": self._local_files_only}

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
        answer = self.stream(function, parse, (), **arguments)
        try:
            while True:
                next(answer)  # of no view, nothing else than the end comes
        except StopIteration as end:
            result: Result = end.value
            return result

    def stream(
        self,
        function: str,
        parse: Callable[[Any], Result],
        shapes: Sequence[tuple[int, ...]],
        **arguments: Any,
    ) -> Generator[tuple[int, np.ndarray], None, Result]:
        """Yield the frames that a function sends, each with the number of its view; return what it
        returns.

        A worker that is left before its end is killed.

        Args:
            shapes: of each view's frames, which are uint8.
            function, parse, arguments: see `call`.

        Raises:
            as `call` does.
        """
        request = json.dumps({"function": function, "arguments": arguments}).encode() + b"\n"
        worker = self._take()
        try:
            outcome = yield from worker.ask(request, parse, shapes)
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
        worker = _Worker(self._read_timeout, self._memory_bytes, **self._options)
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

    def __init__(self, read_timeout: ReadTimeout, memory_bytes: int | None, **options: Any):
        self._memory_bytes = memory_bytes
        self._unread = b""
        folders = [str(PACKAGE_FOLDER), os.environ.get("PYTHONPATH", "")]
        super().__init__(
            WORKER_COMMAND,
            read_timeout,
            deque(maxlen=NUM_STDERR_LINES),
            has_stdin=True,
            memory_bytes=memory_bytes,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, folders))},
            **options,
        )

    def ask(
        self,
        request: bytes,
        parse: Callable[[Any], Result],
        shapes: Sequence[tuple[int, ...]],
    ) -> Generator[tuple[int, np.ndarray], None, Result | VideoError]:
        """Yield the frames of a request, each with the number of its view; return what it gives,
        or the error that its function has raised.

        Raises:
            VideoError: the worker is of no use any more.
        """
        self.stderr_lines.clear()
        try:
            self.write(request)
            while True:
                answer = json.loads(self._read_line())
                if "frame" not in answer:
                    break
                number = int(answer["frame"])
                yield number, self._read_frame(shapes[number], int(answer["bytes"]))
            if self._unread:
                raise ValueError("more than an answer")
            outcome = _parse_answer(answer, parse, self._memory_bytes)
        except BrokenPipeError:
            raise self._crash() from None
        except NONSENSE as error:
            raise VideoError("the decoder answered nonsense", self.stderr_lines) from error
        if isinstance(outcome, MemoryLimitError):  # what it has left may be in pieces
            raise outcome
        return outcome

    def _read_line(self) -> bytes:
        """Return the next line that is not blank: those say that it goes on."""
        line, self._unread = self._unread, b""
        while b"\n" not in (line := line.lstrip(b"\n")):
            if len(line) > MAX_ANSWER_BYTES:
                raise ValueError("too long")
            line += self._read_more(MAX_ANSWER_BYTES)
        line, _, self._unread = line.partition(b"\n")
        return line

    def _read_frame(self, shape: tuple[int, ...], num_bytes: int) -> np.ndarray:
        import numpy as np

        frame = np.empty(shape, np.uint8)
        if frame.nbytes != num_bytes:
            raise ValueError("a frame of another size")
        rest = frame.data.cast("B")
        while rest:
            part = self._unread or self._read_more(MAX_ANSWER_BYTES)
            part, self._unread = part[: len(rest)], part[len(rest) :]
            rest[: len(part)] = part
            rest = rest[len(part) :]
        return frame

    def _read_more(self, max_bytes: int) -> bytes:
        part = self.read_some(max_bytes)
        if not part:
            raise self._crash()
        return part

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
    answer: Any, parse: Callable[[Any], Result], memory_bytes: int | None
) -> Result | VideoError:
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

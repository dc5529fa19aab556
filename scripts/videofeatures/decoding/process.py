"""A process that works for this one, and may crash, hang, or be left in the middle."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import threading
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import IO, NamedTuple

from videofeatures.errors import VideoError

STEP_SECONDS = 1.0
"""How often a wait looks whether it has been stopped."""

LAST_SECONDS = 5
"""How long a process may take to end when it was killed, or has nothing more to say. One that the
kernel holds, on a disk that does not answer, say, is left to itself."""

NUM_STDERR_LINES = 20
"""Lines of a process's messages that are kept for the user."""


class NoAnswerError(VideoError):
    """A process has said nothing for too long."""


class ReadTimeout(NamedTuple):
    """How long to wait for a process to write something, or to end.

    Attributes:
        timeout_seconds: of silence; None for ever. Only time that is spent waiting counts.
        stopped: ends the wait, within `STEP_SECONDS`, when it is set.
    """

    timeout_seconds: float | None = None
    stopped: threading.Event | None = None

    def wait(self, is_ready: Callable[[float], object]) -> None:
        """Wait until something is ready.

        Args:
            is_ready: waits for so many seconds at most, and tells whether it is.

        Raises:
            NoAnswerError: it is not, in time.
            VideoError: the wait was stopped.
        """
        limit = self.timeout_seconds
        waited = 0.0
        # In steps, so that time in which this process itself is suspended does not count.
        while self.stopped is None or not self.stopped.is_set():
            step = STEP_SECONDS if limit is None else min(STEP_SECONDS, limit - waited)
            if is_ready(step):
                return
            waited += step
            if limit is not None and waited >= limit:
                raise NoAnswerError(f"the decoder stopped answering for {limit:g} s")
        raise VideoError("stopped")


class ChildProcess:
    """A process whose output is read under a time limit.

    As a context manager, it is gone when it is left. The input of one that is forgotten ends.

    Attributes:
        stderr_lines: the last lines of its standard error.
    """

    def __init__(
        self,
        command: Sequence[str],
        read_timeout: ReadTimeout,
        stderr_lines: deque[str],
        *,
        has_stdin: bool = False,
        pipe_bytes: int | None = None,
        extra_niceness: int = 0,
        env: Mapping[str, str] | None = None,
    ):
        """Start it.

        Args:
            stderr_lines: takes the lines.
            has_stdin: whether `write` is going to be used.
            pipe_bytes: size to ask for the pipe of its standard output; None for the default.
            extra_niceness: how much it gives way to this process.
            env: its environment; None for ours.

        Raises:
            OSError: it cannot be started.
        """
        self.stderr_lines = stderr_lines
        self._read_timeout = read_timeout
        self._process: subprocess.Popen[bytes] = subprocess.Popen(
            command,
            stdin=subprocess.PIPE if has_stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
        )
        assert self._process.stdout is not None
        self._stdout: IO[bytes] = self._process.stdout
        _lower_priority(self._process.pid, extra_niceness)
        # stderr is read all the time: the process would stop when its pipe is full.
        self._listener = threading.Thread(
            target=_listen, args=(self._process.stderr, stderr_lines), daemon=True
        )
        self._listener.start()
        if pipe_bytes is not None:
            _resize_pipe(self._stdout, pipe_bytes)
        # Python keeps a forgotten process, and its pipes, until it ends. One that reads ends then.
        self._close_stdin = weakref.finalize(self, _close, self._process.stdin)
        self._poll = select.poll()
        self._poll.register(self._stdout, select.POLLIN)

    def __enter__(self) -> ChildProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def write(self, data: bytes) -> None:
        """Write to its standard input no more than a pipe holds, 64 KiB.

        Raises:
            BrokenPipeError: it does not read any more.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(data)
        self._process.stdin.flush()

    def read_into(self, buffer: memoryview) -> int:
        """Fill a buffer, and return how many bytes it got: fewer only at the output's end.

        Raises:
            NoAnswerError: nothing came for too long.
            VideoError: the wait was stopped.
        """
        num_bytes = 0
        while num_bytes < len(buffer):
            self._wait_until(self._is_readable)
            num_read = os.readv(self._stdout.fileno(), [buffer[num_bytes:]])
            if not num_read:
                break
            num_bytes += num_read
        return num_bytes

    def read_some(self, max_bytes: int) -> bytes:
        """Return what comes next; nothing at the output's end. Raises as `read_into`."""
        self._wait_until(self._is_readable)
        return os.read(self._stdout.fileno(), max_bytes)

    def wait(self, read_timeout: ReadTimeout | None = None) -> int:
        """Wait for its end, and return its exit status, negative for a signal.

        Raises:
            NoAnswerError: it does not end.
            VideoError: the wait was stopped.
        """
        self._wait_until(self._has_ended, read_timeout)
        self._listener.join(LAST_SECONDS)
        return self._process.returncode

    def kill(self) -> None:
        """Kill it without any wait; `close` is still to be called by the thread that reads."""
        self._process.kill()

    def close(self) -> None:
        """Kill it, if it has not ended, and wait until it is gone."""
        self._process.kill()
        self._close_stdin()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(LAST_SECONDS)
        self._stdout.close()
        self._listener.join(LAST_SECONDS)
        if self._process.stderr is not None and not self._listener.is_alive():
            self._process.stderr.close()

    def _wait_until(
        self, is_ready: Callable[[float], object], read_timeout: ReadTimeout | None = None
    ) -> None:
        try:
            (read_timeout or self._read_timeout).wait(is_ready)
        except VideoError as error:
            error.ffmpeg_lines = list(self.stderr_lines)
            raise

    def _is_readable(self, seconds: float) -> bool:
        return bool(self._poll.poll(seconds * 1000))

    def _has_ended(self, seconds: float) -> bool:
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True


def _close(pipe: IO[bytes] | None) -> None:
    if pipe is not None:
        with contextlib.suppress(BrokenPipeError):  # of what could not be written before
            pipe.close()


def _listen(stderr: IO[bytes], lines: deque[str]) -> None:
    for line in stderr:
        lines.append(line.decode(errors="replace").rstrip())


def _lower_priority(pid: int, extra_niceness: int) -> None:
    niceness = os.getpriority(os.PRIO_PROCESS, 0) + extra_niceness
    with contextlib.suppress(ProcessLookupError):  # it has ended already
        os.setpriority(os.PRIO_PROCESS, pid, niceness)  # the kernel stops at 19


def _resize_pipe(pipe: IO[bytes], num_bytes: int) -> None:
    try:
        import fcntl

        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, num_bytes)
    except (ImportError, AttributeError, OSError):
        pass  # not Linux, or the user's share of pipe memory is spent: only slower

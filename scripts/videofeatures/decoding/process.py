"""A process that works for this one, and may crash, hang, or be left in the middle."""

from __future__ import annotations

import contextlib
import math
import os
import select
import subprocess
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, NamedTuple, Protocol

from videofeatures.errors import MachineError, VideoError

STEP_SECONDS = 1.0
"""How often a wait looks whether it has been stopped."""

LAST_SECONDS = 5
"""How long a process may take to end when it was killed, or has nothing more to say. One that the
kernel holds, on a disk that does not answer, say, is left to itself."""

NUM_STDERR_LINES = 20
"""Lines of a process's messages that are kept for the user."""


DEFAULT_MEMORY_BYTES = 1000 << 20
"""What one process may take of memory, unless the user says otherwise: 4K takes 0.4 GB on two
threads, and 0.65 on eight (H.264 and HEVC of 10 bits, measured)."""

MEMORY_LOOK_SECONDS = 0.02
"""How often, at most, a process's memory is looked at while it says something."""


class NoAnswerError(VideoError):
    """A process has said nothing for too long."""


class MemoryLimitError(VideoError):
    """A process has tried to take more memory than it may."""

    def __init__(self, num_bytes: int, lines: Iterable[str] = ()):
        """
        Args:
            num_bytes: that it may take.
            lines: that it has said.
        """
        super().__init__(
            f"decoding needs more than {num_bytes >> 20} MB of memory: damaged, or larger than 4K. "
            "If you trust it, raise `decoder_memory_mb`",
            lines,
        )


class ReadTimeout(NamedTuple):
    """How long to wait for a process to write something, or to end.

    Attributes:
        timeout_seconds: of silence; None for ever. Only time that is spent waiting counts.
        stopped: ends the wait, within `STEP_SECONDS`, when it is set.
    """

    timeout_seconds: float | None = None
    stopped: threading.Event | None = None

    def wait(
        self, is_ready: Callable[[float], object], num_signs: Callable[[], int] = lambda: 0
    ) -> None:
        """Wait until something is ready.

        Args:
            is_ready: waits for so many seconds at most, and tells whether it is.
            num_signs: a number that grows with each sign of life: then the time starts anew.

        Raises:
            NoAnswerError: it is not, in time.
            VideoError: the wait was stopped.
        """
        limit = self.timeout_seconds
        waited, seen = 0.0, num_signs()
        # In steps, so that time in which this process itself is suspended does not count.
        while self.stopped is None or not self.stopped.is_set():
            step = STEP_SECONDS if limit is None else min(STEP_SECONDS, limit - waited)
            if is_ready(step):
                return
            waited += step
            if (now := num_signs()) != seen:
                waited, seen = 0.0, now
            if limit is not None and waited >= limit:
                raise NoAnswerError(f"the decoder stopped answering for {limit:g} s")
        raise MachineError("stopped")


class Listener(Protocol):
    """Takes what a process says on its standard error."""

    @property
    def is_hopeless(self) -> bool:
        """Whether the process is to be killed for what it has said."""

    @property
    def num_signs(self) -> int:
        """A number that grows when it says that it is at work, though nothing comes of it yet."""

    def take(self, line: str) -> str | None:
        """Take a line; return it as people are to see it, or None if they need not."""


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
        memory_bytes: int | None = None,
        listener: Listener | None = None,
        more_pipes: Sequence[tuple[int, int]] = (),
    ):
        """Start it.

        Args:
            stderr_lines: takes the lines.
            has_stdin: whether `write` is going to be used.
            pipe_bytes: size to ask for the pipe of its standard output; None for the default.
            extra_niceness: how much it gives way to this process.
            env: its environment; None for ours.
            memory_bytes: that its data, stacks included, may take; None for no limit. An allocation
                above it fails. Only Linux keeps it.
            listener: is told the lines before `stderr_lines` is.
            more_pipes: of `os.pipe`, for what it writes beside its standard output: it has the
                second end of each, by its number. They are closed with it.

        Raises:
            OSError: it cannot be started.
        """
        self.stderr_lines = stderr_lines
        self._peak = _Peak()
        self._read_timeout = read_timeout
        self._told = listener
        more: list[IO[bytes]] = [os.fdopen(ours, "rb", buffering=0) for ours, _ in more_pipes]
        try:
            self._process: subprocess.Popen[bytes] = subprocess.Popen(
                command,
                stdin=subprocess.PIPE if has_stdin else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=env,
                pass_fds=[theirs for _, theirs in more_pipes],
            )
        except BaseException:
            for pipe in more:
                pipe.close()
            raise
        finally:
            for _, theirs in more_pipes:
                os.close(theirs)
        assert self._process.stdout is not None
        self._stdout: IO[bytes] = self._process.stdout
        self._outputs: list[IO[bytes]] = [self._stdout, *more]
        _set_limits(self._process.pid, memory_bytes)
        _lower_priority(self._process.pid, extra_niceness)
        # stderr is read all the time: the process would stop when its pipe is full.
        self._listener = threading.Thread(
            target=_listen, args=(self._process, stderr_lines, listener, self._peak), daemon=True
        )
        self._listener.start()
        if pipe_bytes is not None:
            for pipe in self._outputs:
                _resize_pipe(pipe, pipe_bytes)
        # Python keeps a forgotten process, and its pipes, until it ends. One that reads ends then.
        self._close_stdin = weakref.finalize(self, _close, self._process.stdin)
        self._poll = select.poll()
        # By their numbers, those that have not come to their end.
        self._place_of = {pipe.fileno(): place for place, pipe in enumerate(self._outputs)}
        for pipe in self._outputs:
            self._poll.register(pipe, select.POLLIN)

    def __enter__(self) -> ChildProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    @property
    def peak_memory_bytes(self) -> int:
        """The most that its data took, of what was seen: it is looked at when it says something."""
        return self._peak.num_bytes

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

    def wait_for_outputs(self) -> list[int]:
        """Wait until something is to be read; return the numbers of the outputs that have it, or
        have come to their end: 0 for the standard output, then those of `more_pipes`. None are
        left when all have been read to their end.

        Raises:
            NoAnswerError: nothing came for too long.
            VideoError: the wait was stopped.
        """
        if not self._place_of:
            return []
        ready: list[tuple[int, int]] = []

        def look(seconds: float) -> bool:
            ready[:] = self._poll.poll(seconds * 1000)
            return bool(ready)

        self._wait_until(look)
        return [self._place_of[number] for number, _ in ready]

    def read_part(self, output: int, buffer: memoryview) -> int:
        """Read what an output has, once it has something; return how many bytes: none at its end,
        after which it is not waited for any more."""
        pipe = self._outputs[output]
        num_read = os.readv(pipe.fileno(), [buffer])
        if not num_read:
            self._poll.unregister(pipe)
            del self._place_of[pipe.fileno()]
        return num_read

    def read_some(self, max_bytes: int) -> bytes:
        """Return what comes next; nothing at the output's end. Raises as
        `wait_for_outputs`."""
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
        for pipe in self._outputs:
            pipe.close()
        self._listener.join(LAST_SECONDS)
        if self._process.stderr is not None and not self._listener.is_alive():
            self._process.stderr.close()

    def _wait_until(
        self, is_ready: Callable[[float], object], read_timeout: ReadTimeout | None = None
    ) -> None:
        try:
            (read_timeout or self._read_timeout).wait(is_ready, self._num_signs)
        except VideoError as error:
            error.ffmpeg_lines = list(self.stderr_lines)
            raise

    def _num_signs(self) -> int:
        return self._told.num_signs if self._told else 0

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


@dataclass
class _Peak:
    num_bytes: int = 0


# Knows nothing of the `ChildProcess`, which would not be forgotten then.
def _listen(
    process: subprocess.Popen[bytes], lines: deque[str], listener: Listener | None, peak: _Peak
) -> None:
    assert process.stderr is not None
    looked = -math.inf
    for data in process.stderr:
        if (now := time.monotonic()) >= looked + MEMORY_LOOK_SECONDS:
            looked = now
            peak.num_bytes = max(peak.num_bytes, _data_bytes(process.pid))
        line = data.decode(errors="replace").rstrip()
        kept = listener.take(line) if listener else line
        if kept is not None:
            lines.append(kept)
        if listener and listener.is_hopeless:
            process.kill()


def _set_limits(pid: int, num_bytes: int | None) -> None:
    try:
        import resource

        # Once it runs: `preexec_fn`, before, is not safe where there are threads.
        resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))  # a crash leaves no file
        if num_bytes is None:
            return
        _, hard = resource.prlimit(pid, resource.RLIMIT_DATA)
        limit = num_bytes if hard == resource.RLIM_INFINITY else min(num_bytes, hard)
        resource.prlimit(pid, resource.RLIMIT_DATA, (limit, limit))
    except (ImportError, AttributeError, OSError):
        pass  # not Linux, or it has ended already


def _data_bytes(pid: int) -> int:
    """Return what a process takes of its `memory_bytes`; 0 if it is not known."""
    try:
        with open(f"/proc/{pid}/status") as file:
            sizes = [line.split()[1] for line in file if line.startswith("VmData:")]
    except OSError:
        return 0
    return int(sizes[0]) * 1024 if sizes else 0


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

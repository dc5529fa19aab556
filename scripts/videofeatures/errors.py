"""The kinds of trouble: the user's input, one video, and the machine."""

from __future__ import annotations

import errno
import signal
from collections.abc import Iterable

MAX_SHOWN = 20
"""Problems listed one by one in a message; the others are counted."""


class UserError(Exception):
    """The configuration, the CSV or the weights cannot be used.

    Args:
        problems: one sentence each, naming the file, row or key, what is wrong
            and what to do. All are shown at once.
    """

    def __init__(self, problems: str | Iterable[str]):
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        shown = self.problems[:MAX_SHOWN]
        if len(self.problems) > MAX_SHOWN:
            shown.append(f"… and {len(self.problems) - MAX_SHOWN} more problems")
        super().__init__("\n".join(shown))


def describe_os_error(error: OSError) -> str:
    """Return what an operating system's error is about, in one line for people."""
    # Not every operation knows the name of its file.
    place = "" if error.filename is None else f"{error.filename}: "
    return f"{place}{error.strerror or error}"


class VideoError(Exception):
    """One video cannot be turned into features; the others can go on.

    Args:
        reason: a short phrase that a user can act on.
        ffmpeg_lines: the last lines of ffmpeg's stderr, if there are any.
    """

    def __init__(self, reason: str, ffmpeg_lines: Iterable[str] = ()):
        self.reason = reason
        self.ffmpeg_lines = list(ffmpeg_lines)
        super().__init__(reason)


class MachineError(VideoError):
    """The machine failed, not the video: its row is tried again, whatever `retry_failed` says."""


VIDEO_SIGNALS = frozenset(
    (signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE, signal.SIGILL, signal.SIGBUS, signal.SIGTRAP)
)
"""Those that end a process for what it did itself: a decoder that a video has crashed. Others come
from outside: the kernel, short of memory, a scheduler, or a person."""

MACHINE_ERRNOS = frozenset(
    (
        errno.EIO,
        errno.ENOSPC,
        errno.EDQUOT,
        errno.ESTALE,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.EAGAIN,
        errno.ETIMEDOUT,
        errno.ENODEV,
        errno.ENXIO,
        errno.EREMOTEIO,
    )
)
"""Errors of a disk, a network or a machine that is short of something: not those of one file."""


def reading_error(error: OSError) -> VideoError:
    """Return what the failure to open a video's file means for its row."""
    kind = MachineError if error.errno in MACHINE_ERRNOS else VideoError
    return kind(error.strerror or str(error))

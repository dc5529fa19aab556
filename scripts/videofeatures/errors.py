"""The two kinds of trouble: the user's input, and one video."""

from __future__ import annotations

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

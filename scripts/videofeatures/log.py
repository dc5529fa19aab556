"""Messages: one line each, on stderr and in a file."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Mapping

ALL = "videofeatures"
"""The logger above those of all modules; those of the scripts are not below it."""

ROWS = "videofeatures.extraction.writer"
"""The logger that has a line for each row."""


class _LogFile(logging.FileHandler):
    """A log that says once, on stderr, that its disk takes no more."""

    has_failed = False

    def handleError(self, record: logging.LogRecord) -> None:
        """Say why a message could not be written, where that is the disk's fault."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self.has_failed:
            self.has_failed = True
            with contextlib.suppress(OSError):
                print(
                    f"{self.baseFilename}: the log cannot be written: {error.strerror}. What "
                    "follows is not in it",
                    file=sys.stderr,
                )


def start_logging(
    log_path: str | None,
    *,
    levels_on_stderr: Mapping[str, int] | None = None,
    before: Callable[[], None] | None = None,
) -> None:
    """Log one line a message, on stderr and in `log_path`, which has all of them.

    Args:
        levels_on_stderr: by logger, the least level that stderr gets of it and of those below.
        before: called before a line goes to stderr.

    Raises:
        OSError: the file cannot be written.
    """

    def is_for_stderr(record: logging.LogRecord) -> bool:
        for name, level in (levels_on_stderr or {}).items():
            if f"{record.name}.".startswith(f"{name}.") and record.levelno < level:
                return False
        if before:
            before()
        return True

    on_stderr = logging.StreamHandler()
    on_stderr.addFilter(is_for_stderr)
    handlers: list[logging.Handler] = [on_stderr]
    if log_path:
        os.makedirs(os.path.dirname(log_path) or ".", exist_ok=True)
        handlers.append(_LogFile(log_path, mode="w", encoding="utf-8", errors="backslashreplace"))
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=handlers)

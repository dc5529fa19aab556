"""Messages: one line each, on stderr and in a file."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping

ALL = "videofeatures"
"""The logger above those of all modules; those of the scripts are not below it."""

ROWS = "videofeatures.extraction.writer"
"""The logger that has a line for each row."""


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
        handlers.append(logging.FileHandler(log_path, mode="w", encoding="utf-8"))
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=handlers)

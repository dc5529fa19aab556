"""Messages: one line each, on stderr and in a file."""

from __future__ import annotations

import logging
import os


def start_logging(log_path: str | None) -> None:
    """One line a message, on stderr and in `log_path`."""
    handlers: list[logging.Handler] = [logging.StreamHandler()]
    if log_path:
        os.makedirs(os.path.dirname(log_path) or ".", exist_ok=True)
        handlers.append(logging.FileHandler(log_path, mode="w", encoding="utf-8"))
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=handlers)

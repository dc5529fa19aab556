"""How far a run is: what is counted, what is said of it, and where.

On a terminal it is one line at the bottom that is written again and again. Elsewhere, in a log,
it is a line now and then, so that a run of days leaves some hundred of them.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable
from typing import TextIO

WINDOW_SECONDS = 600
"""Rates are those of the last ten minutes: a start, or a wait for a GPU, is soon forgotten."""

MAX_SAMPLES = 1000
REDRAW_SECONDS = 0.2

FIRST_LINE_SECONDS = 60
LINE_GROWTH = 1.1
"""A log has a line after a minute, then one each time a tenth of the time so far has passed,
and never more than one a minute: a hundred in ten days."""


class Progress:
    """Counts the rows of a run as they end.

    Attributes:
        num_rows: all that are to be done.
        num_done, num_failed: here; `num_elsewhere` were done by other runs meanwhile.
        video_seconds: length of the videos that are done, as their headers say.
    """

    def __init__(self, num_rows: int, *, clock: Callable[[], float] = time.monotonic):
        self.num_rows = num_rows
        self.num_done = 0
        self.num_failed = 0
        self.num_elsewhere = 0
        self.video_seconds = 0.0
        self._clock = clock
        self.started = clock()
        # (when, rows that had ended, seconds of video) from which rates are taken.
        self._samples: deque[tuple[float, int, float]] = deque([(self.started, 0, 0.0)])

    @property
    def num_ended(self) -> int:
        """Rows of which nothing more will come."""
        return self.num_done + self.num_failed + self.num_elsewhere

    @property
    def elapsed_seconds(self) -> float:
        """Since this was made."""
        return self._clock() - self.started

    def add(
        self, *, done: int = 0, failed: int = 0, elsewhere: int = 0, video_seconds: float = 0
    ) -> None:
        """Count rows that have ended."""
        self.num_done += done
        self.num_failed += failed
        self.num_elsewhere += elsewhere
        self.video_seconds += video_seconds
        now = self._clock()
        spacing = WINDOW_SECONDS / MAX_SAMPLES
        if len(self._samples) > 1 and now - self._samples[-2][0] < spacing:
            self._samples.pop()
        self._samples.append((now, self.num_done + self.num_failed, self.video_seconds))
        while len(self._samples) > 2 and now - self._samples[1][0] > WINDOW_SECONDS:
            self._samples.popleft()

    def rates(self) -> tuple[float, float]:
        """Rows, and seconds of video, a second, over the last minutes."""
        when, num_rows, video_seconds = self._samples[0]
        seconds = max(self._clock() - when, 1e-3)
        num_worked_on = self.num_done + self.num_failed
        return (num_worked_on - num_rows) / seconds, (self.video_seconds - video_seconds) / seconds

    def __str__(self) -> str:
        share = self.num_ended / max(self.num_rows, 1)
        parts = [
            f"{self.num_ended:,} of {self.num_rows:,} videos ({math.floor(100 * share)} %)",
            f"{describe_seconds(self.video_seconds)} of video",
        ]
        row_rate, video_rate = self.rates()
        if row_rate > 0:
            parts.append(f"{_describe_rate(row_rate)}, {video_rate:.3g} times as fast as they play")
        if self.num_failed:
            parts.append(f"{self.num_failed:,} failed")
        if row_rate > 0 and self.num_ended < self.num_rows:
            seconds_left = (self.num_rows - self.num_ended) / row_rate
            parts.append(f"{describe_seconds(seconds_left)} left")
        return "; ".join(parts)


def _describe_rate(rows_per_second: float) -> str:
    if rows_per_second >= 1:
        return f"{rows_per_second:.3g} videos/s"
    if rows_per_second * 60 >= 1:
        return f"{rows_per_second * 60:.3g} videos/min"
    return f"{rows_per_second * 3600:.3g} videos/h"


def describe_seconds(seconds: float) -> str:
    """A length of time as people say it, in two or three digits: 42 s, 5.3 min, 7.1 h, 12 days."""
    for unit, length, limit in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 3 * 86400)):
        if seconds < limit:
            value = seconds / length
            return f"{value:.1f} {unit}" if 0 < value < 10 else f"{value:.0f} {unit}"
    return f"{seconds / 86400:,.1f} days"


def describe_bytes(num_bytes: float) -> str:
    """A size in three digits: 48.6 kB, 1.9 TB."""
    for unit, length in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if num_bytes >= length:
            return f"{num_bytes / length:.3g} {unit}"
    return f"{num_bytes / 1e3:.3g} kB"


class Display:
    """Where a progress is shown.

    Args:
        say: takes a line now and then, where there is no terminal.
        terminal: a stream that may be one; None for none.
    """

    def __init__(self, say: Callable[[str], None], terminal: TextIO | None = None):
        self._say = say
        self._terminal = terminal if terminal is not None and terminal.isatty() else None
        self._is_drawn = False
        self._drawn_at = -math.inf
        self._next_line_seconds = float(FIRST_LINE_SECONDS)

    def update(self, progress: Progress) -> None:
        """Show it, if it is time to."""
        if self._terminal:
            now = time.monotonic()
            if now - self._drawn_at >= REDRAW_SECONDS:
                self._drawn_at = now
                self._draw(self._terminal, str(progress))
            return
        elapsed = progress.elapsed_seconds
        if elapsed >= self._next_line_seconds:
            self._next_line_seconds = max(elapsed * LINE_GROWTH, elapsed + FIRST_LINE_SECONDS)
            self._say(str(progress))

    def clear(self) -> None:
        """Take the line away, for others to write there."""
        if self._terminal and self._is_drawn:
            self._is_drawn = False
            self._terminal.write("\r\x1b[K")
            self._terminal.flush()

    @property
    def is_live(self) -> bool:
        """Whether there is a terminal."""
        return self._terminal is not None

    def _draw(self, terminal: TextIO, text: str) -> None:
        try:
            width = os.get_terminal_size(terminal.fileno()).columns or 80
        except OSError:
            width = 80
        # A line that is longer than the terminal could not be taken away again.
        text = text if len(text) < width else text[: max(width - 2, 0)] + "…"
        terminal.write(f"\r{text}\x1b[K")
        terminal.flush()
        self._is_drawn = True

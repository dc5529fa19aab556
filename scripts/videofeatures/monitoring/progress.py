"""Progress of a run: what is counted, how it is described, and where it is shown.

On a terminal, one line at the bottom is redrawn. Elsewhere, in a log, a line is written at growing
intervals, so that a run of days leaves about a hundred.

tqdm 4.70.1 was tried for `Display`, which got three lines shorter: growing intervals and lines for
a logger stay ours. It drew nothing on a terminal that does not tell its size, cut long lines
without a sign, and started a thread. rich 15.0.0 hides the cursor, which a killed process leaves
hidden, and starts a new line to clear one. Neither replaces `Progress`: tqdm has the mean rate of
the whole run, or a moving average of steps; rich keeps 1,000 samples, which with 40 rows a second
were 25 of the 600 seconds asked for, and its rate did not fall in 500 seconds without a row.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable
from typing import TextIO

from videofeatures.units import describe_seconds

WINDOW_SECONDS = 600
"""Rates are those of the last ten minutes, so that a start or a wait for a GPU soon drops out."""

MAX_SAMPLES = 1000
REDRAW_SECONDS = 0.2

FIRST_LINE_SECONDS = 60
LINE_GROWTH = 1.1
"""A log gets a line after a minute, then another each time the elapsed time has grown by a tenth,
but at most one a minute: a hundred in ten days."""


_Sample = tuple[float, int, float, float]


class Progress:
    """Count the rows of a run as they end, and measure rates.

    Attributes:
        num_rows: number of rows to do, or of feature files, where a row has several.
        num_done, num_failed: rows that ended in this run.
        num_complained: of those done, the ones of whose videos the decoder has complained.
        num_fallbacks: of those done, the ones that the CPU decoded, though a device was asked for.
        num_elsewhere: rows that other runs did meanwhile. They count as ended, but not in rates.
        video_seconds: total length of the videos that are done, according to their headers.
        num_bytes: total size of the videos that have ended.
        working_bytes: of those that are in work, what has been decoded so far.
        total_bytes: of all videos; None if it is not known. How much is left is measured by size,
            as nothing else is known of a video before it is opened: a row may be hours of video.
    """

    def __init__(
        self,
        num_rows: int,
        *,
        unit: str = "videos",
        clock: Callable[[], float] = time.monotonic,
    ):
        """
        Args:
            unit: what they are to people.
        """
        self.num_rows = num_rows
        self._unit = unit
        self.num_done = 0
        self.num_failed = 0
        self.num_complained = 0
        self.num_fallbacks = 0
        self.num_elsewhere = 0
        self.video_seconds = 0.0
        self.num_bytes = 0.0
        self.working_bytes = 0.0
        self.total_bytes: float | None = None
        self._clock = clock
        self.started = clock()
        # (time; rows done or failed by then, seconds of video, bytes) to measure rates from.
        self._samples: deque[_Sample] = deque([(self.started, 0, 0.0, 0.0)])

    @property
    def num_ended(self) -> int:
        """Number of rows that are done, failed, or done elsewhere."""
        return self.num_done + self.num_failed + self.num_elsewhere

    @property
    def elapsed_seconds(self) -> float:
        """Time since the progress was created."""
        return self._clock() - self.started

    def add(
        self,
        *,
        done: int = 0,
        complained: int = 0,
        fell_back: int = 0,
        failed: int = 0,
        elsewhere: int = 0,
        video_seconds: float = 0,
        num_bytes: float = 0,
    ) -> None:
        """Add rows that have ended, the length of the videos that are done, and their size."""
        self.num_done += done
        self.num_complained += complained
        self.num_fallbacks += fell_back
        self.num_failed += failed
        self.num_elsewhere += elsewhere
        self.video_seconds += video_seconds
        self.num_bytes += num_bytes
        if elsewhere and self.total_bytes:  # of whose videos nothing is told
            self.num_bytes += elsewhere * self.total_bytes / self.num_rows
        self._sample()

    def set_working(self, num_bytes: float) -> None:
        """Set what has been decoded of the videos that are in work."""
        self.working_bytes = num_bytes
        self._sample()

    def _sample(self) -> None:
        now = self._clock()
        spacing = WINDOW_SECONDS / MAX_SAMPLES
        if len(self._samples) > 1 and now - self._samples[-2][0] < spacing:
            self._samples.pop()
        self._samples.append((now, *self._worked_on()))
        while len(self._samples) > 2 and now - self._samples[1][0] > WINDOW_SECONDS:
            self._samples.popleft()

    def _worked_on(self) -> tuple[int, float, float]:
        num_bytes = self.num_bytes + self.working_bytes
        return self.num_done + self.num_failed, self.video_seconds, num_bytes

    def rates(self) -> tuple[float, float, float]:
        """Return the rows, the seconds of video and the bytes of video files per second, over the
        last `WINDOW_SECONDS`."""
        since, *before = self._samples[0]
        seconds = max(self._clock() - since, 1e-3)
        rows, video_seconds, num_bytes = (
            (now - then) / seconds for now, then in zip(self._worked_on(), before, strict=True)
        )
        return rows, video_seconds, num_bytes

    def seconds_left(self) -> float | None:
        """Return how long the rest takes at these rates; None if that cannot be told."""
        if self.num_ended >= self.num_rows:
            return None
        row_rate, _, byte_rate = self.rates()
        if self.total_bytes and byte_rate > 0:
            return max(self.total_bytes - self._worked_on()[2], 0) / byte_rate
        return (self.num_rows - self.num_ended) / row_rate if row_rate > 0 else None

    def __str__(self) -> str:
        share = self.num_ended / max(self.num_rows, 1)
        parts = [
            f"{self.num_ended:,} of {self.num_rows:,} {self._unit} ({math.floor(100 * share)} %)",
            f"{describe_seconds(self.video_seconds)} of video",
        ]
        row_rate, video_rate, _ = self.rates()
        if row_rate > 0:
            rate = _describe_rate(row_rate, self._unit)
            parts.append(f"{rate}, {video_rate:.3g} times as fast as they play")
        if self.num_failed:
            parts.append(f"{self.num_failed:,} failed")
        if self.num_complained:
            parts.append(f"{self.num_complained:,} with complaints")
        if self.num_fallbacks:
            parts.append(f"{self.num_fallbacks:,} decoded on the CPU, not on the device")
        if (seconds_left := self.seconds_left()) is not None:
            parts.append(f"{describe_seconds(seconds_left)} left")
        return "; ".join(parts)


def _describe_rate(rows_per_second: float, unit: str) -> str:
    if rows_per_second >= 1:
        return f"{rows_per_second:.3g} {unit}/s"
    if rows_per_second * 60 >= 1:
        return f"{rows_per_second * 60:.3g} {unit}/min"
    return f"{rows_per_second * 3600:.3g} {unit}/h"


class Display:
    """Show a progress: as one line that is redrawn on a terminal, else as lines of a log.

    Args:
        say: called with each line of the log, if there is no terminal.
        terminal: stream to draw on if it is a terminal, or None.
    """

    def __init__(self, say: Callable[[str], None], terminal: TextIO | None = None):
        self._say = say
        self._terminal = terminal if terminal is not None and terminal.isatty() else None
        self._is_drawn = False
        self._drawn_at = -math.inf
        self._next_line_seconds = float(FIRST_LINE_SECONDS)

    def update(self, progress: Progress) -> None:
        """Show the progress if the last line is old enough."""
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

    def say(self, *lines: str) -> None:
        """Give lines to `say`, in place of the progress."""
        self.clear()
        for line in lines:
            self._say(line)

    def clear(self) -> None:
        """Clear the line before other output."""
        if self._terminal and self._is_drawn:
            self._is_drawn = False
            self._terminal.write("\r\x1b[K")
            self._terminal.flush()

    @property
    def is_live(self) -> bool:
        """Whether the progress is shown on a terminal."""
        return self._terminal is not None

    def _draw(self, terminal: TextIO, text: str) -> None:
        try:
            width = os.get_terminal_size(terminal.fileno()).columns or 80
        except OSError:
            width = 80
        # A line that wraps could not be cleared.
        text = text if len(text) < width else text[: max(width - 2, 0)] + "…"
        terminal.write(f"\r{text}\x1b[K")
        terminal.flush()
        self._is_drawn = True

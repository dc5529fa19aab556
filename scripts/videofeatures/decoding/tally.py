"""What ffmpeg says while it decodes: what people have to know, and what is to be counted.

It is asked to say all, and the level of each line: `-loglevel repeat+level+verbose`. Another
version of it may say less; then less is known.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

LINE = re.compile(r"((?:\[[^\]]* @ 0x[0-9a-f]+\] )*)\[([a-z]+)\] ?(.*)", re.DOTALL)
"""Who says it, at which level, and what."""

COMPLAINTS = ("panic", "fatal", "error")

CORRUPT = re.compile(r"corrupt decoded frame( in stream \d+)?$")
"""A warning for each frame that its decoder flags: with errors that are concealed, or without a
frame that it refers to (fftools/ffmpeg_dec.c)."""

TOTALS = re.compile(
    r"\(video\): (\d+) packets read .*; (\d+) frames decoded;(?: (\d+) decode errors)?"
)
"""What it says of a stream at its end (fftools/ffmpeg.c, `print_final_stats`). Version 5 counts no
errors."""

NO_FRAMES = "No filtered frames for output stream"
"""A warning at the end of a graph that has given no frame (fftools/ffmpeg_filter.c)."""

NO_MEMORY = re.compile(r"(Cannot|Could not) allocate memory|Out of memory", re.IGNORECASE)


@dataclass
class Tally:
    """What was counted in one run of ffmpeg.

    Attributes:
        num_corrupt: frames that came, though damaged.
        num_packets: that were read, for these frames; None before the end.
        num_frames: that were decoded, whether they were taken or not; None before the end.
        num_errors: packets that gave no frame.
        lacks_buffers: a frame had no room: of an absurd size, or for lack of memory.
        has_no_frames: the first filter gave none.
        is_hopeless: it lacks memory. It would go on without some frames, or wait for ever (both
            seen: 9.0.2, with two threads).
    """

    num_corrupt: int = 0
    num_packets: int | None = None
    num_frames: int | None = None
    num_errors: int = 0
    lacks_buffers: bool = False
    has_no_frames: bool = False
    is_hopeless: bool = False
    _is_complaint: bool = True

    def take(self, line: str) -> str | None:
        """Count what a line says; return it, without its level, if it is a complaint."""
        match = LINE.match(line)
        if match is None:  # the next line of what it says, or of a version without levels
            return line if self._is_complaint else None
        speaker, level, text = match.groups()
        self._is_complaint = level in COMPLAINTS
        if self._is_complaint:
            self.lacks_buffers |= "get_buffer() failed" in text
            self.is_hopeless |= NO_MEMORY.search(text) is not None
            return speaker + text
        if level == "warning" and CORRUPT.search(text):
            self.num_corrupt += 1
        elif text.startswith(NO_FRAMES):
            self.has_no_frames = True
        elif totals := TOTALS.search(text):
            self.num_packets, self.num_frames, self.num_errors = (
                int(number or 0) for number in totals.groups()
            )
        return None

"""What ffmpeg says while it decodes: what people have to know, and what is to be counted.

It is asked to say all, and the level of each line: `-loglevel repeat+level+verbose`. Another
version of it may say less; then less is known.

Its filter `showinfo` says when each frame is shown: three lines a frame, 500 bytes, which is 50 MB
for an hour of 30 frames a second. They are read as they come, and of each eight bytes are kept.
"""

from __future__ import annotations

import math
import re
from array import array
from dataclasses import dataclass, field, fields

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

SAME_TIME = "non monotonically increasing dts to muxer"
"""What it says of frames that are shown at one time, or nearly. Nothing is lost: what they are
written as, raw, has no times (libavformat/mux.c, AVFMT_NOTIMESTAMPS)."""

SHOWINFO = "[Parsed_showinfo_"
"""How that filter calls itself."""

SHOWN = re.compile(r"n: *(\d+) pts: *(-?\d+|NOPTS) +pts_time:")
"""What `showinfo` says of each frame (libavfilter/vf_showinfo.c): its number, from zero in each
graph, and its time. Where another thread has said the start of a line, it stands behind that, and
without a name."""

TIME_BASE = re.compile(r"config in time_base: (\d+)/(\d+)")
"""What it says before: the unit of these times, in seconds."""

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
        shown_seconds: at which each frame is shown that came to `showinfo`, in order; NaN where
            that is not known.
        graph_starts: the places in `shown_seconds` at which ffmpeg has made its filters anew, as it
            does where the size of frames changes; the first is 0.
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
    shown_seconds: array[float] = field(default_factory=lambda: array("d"))
    graph_starts: list[int] = field(default_factory=list)
    _is_complaint: bool = True
    _time_base: tuple[int, int] = (0, 1)

    @property
    def num_signs(self) -> int:
        """Frames of which it has told the time: it is at work, though it may take none of them."""
        return len(self.shown_seconds)

    @property
    def reached_seconds(self) -> float:
        """When the last frame is shown of which it has told the time; 0 before the first."""
        return next((s for s in reversed(self.shown_seconds) if not math.isnan(s)), 0.0)

    def reset(self) -> None:
        """Forget what was counted: another run begins."""
        fresh = Tally()
        for each in fields(self):
            setattr(self, each.name, getattr(fresh, each.name))

    def take(self, line: str) -> str | None:
        """Count what a line says; return it, without its level, if it is a complaint."""
        if (shown := SHOWN.search(line)) is not None:
            self._take_time(*shown.groups())
            return None
        match = LINE.match(line)
        if match is None:  # the next line of what it says, or of a version without levels
            return line if self._is_complaint else None
        speaker, level, text = match.groups()
        self._is_complaint = level in COMPLAINTS and SAME_TIME not in text
        if self._is_complaint:
            self.lacks_buffers |= "get_buffer() failed" in text
            self.is_hopeless |= NO_MEMORY.search(text) is not None
            return speaker + text
        if speaker.startswith(SHOWINFO):
            if match := TIME_BASE.match(text):
                unit, units = map(int, match.groups())
                self._time_base = (unit, units) if units else (0, 1)
        elif level == "warning" and CORRUPT.search(text):
            self.num_corrupt += 1
        elif text.startswith(NO_FRAMES):
            self.has_no_frames = True
        elif totals := TOTALS.search(text):
            self.num_packets, self.num_frames, self.num_errors = (
                int(number or 0) for number in totals.groups()
            )
        return None

    def _take_time(self, number: str, pts: str) -> None:
        if number == "0":
            self.graph_starts.append(len(self.shown_seconds))
        unit, units = self._time_base
        self.shown_seconds.append(math.nan if pts == "NOPTS" else int(pts) * unit / units)

"""Parts of videos: which frames belong to one, and how ffmpeg is made to give just these.

Times are compared as ffmpeg does when it cuts: a start and an end are rounded to the nearest tick
of the stream's clock, so that 0.033367, which is how 1/29.97 is written, is the second frame's time
in any file. A tick may be long (in an AVI, it is a frame): then it is divided, until it is no
longer than a millisecond. All else is whole numbers: no time is off by what a float cannot hold.

The frames of a part are those that a file would have that was cut there without loss: they begin
at `start` or later, and before `end`, and the part's start is their zero. So the last of them may
stand for longer than the part does: until the next frame comes, but no more than a usual frame
longer, and no longer in a video of fewer than five frames a second. A part between two frames shows
the one that began before it.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from videofeatures.decoding.bounds import END_TOLERANCE_SECONDS, MIN_USUAL_FPS, with_tolerance
from videofeatures.errors import VideoError
from videofeatures.source import Source, describe_time

if TYPE_CHECKING:
    import ffmpeg  # a worker does without

MAX_TICK = Fraction(1, 1000)
"""Of the clock on which times are compared, in seconds; that of Matroska."""

MAX_TICKS = 2**52
"""From here on, an expression of ffmpeg's loses some: no video is so long."""

IN_OPEN_GROUP = "mmco: unref short failure"
"""What the decoder of H.264 says that begins with an open group of pictures: it is told to forget
frames that it has not seen. Nothing is wrong with those that it gives."""


@dataclass(frozen=True)
class Landing:
    """Where in a file decoding begins.

    Attributes:
        tick: of the clock of the pictures' stream, in seconds.
        seconds: from the container's zero, a whole number of ticks and of microseconds; 0 for the
            beginning of the file. ffmpeg begins at a key frame that is no later.
        key_ticks: from there to that key frame, 0 or less; None at the beginning.
        is_open: that key frame begins an open group of H.264: pictures that are shown before it
            may not be decodable.
    """

    tick: Fraction
    seconds: Fraction = Fraction(0)
    key_ticks: int | None = None
    is_open: bool = False


class Cut:
    """How one part is cut out of what ffmpeg decodes from a landing on."""

    def __init__(self, source: Source, landing: Landing):
        self._landing = landing
        self._divisor = max(1, math.ceil(landing.tick / MAX_TICK))
        self._tick = landing.tick / self._divisor
        self._start = self._to_ticks(source.offset_seconds)
        end = source.end_seconds
        # A part is no shorter than a tick.
        self._end = None if end is None else max(self._to_ticks(end), self._start + 1)

    def _to_ticks(self, seconds: float) -> int:
        """Return the nearest tick of a time, counted from the landing."""
        # A float's digits are those of the CSV; its value is not.
        ticks = (Fraction(str(seconds)) - self._landing.seconds) / self._tick
        return min(math.floor(ticks + Fraction(1, 2)), MAX_TICKS)

    @property
    def skipped_seconds(self) -> float:
        """How much is decoded before the part starts."""
        return float(self._start * self._tick - (self._landing.key_ticks or 0) * self._landing.tick)

    def input_options(self, *, can_filter: bool) -> dict[str, Any]:
        """Return the options of ffmpeg's input.

        Args:
            can_filter: it takes bitstream filters there.
        """
        if not self._landing.seconds:
            return {}
        # What is before the start is cut off below: ffmpeg does not have to.
        options: dict[str, Any] = {
            "ss": f"{float(self._landing.seconds):.6f}",
            "noaccurate_seek": None,
        }
        if can_filter and self._landing.is_open:
            # Its first pictures refer to the group before it: damaged, and counted as such.
            options["bsf:V:0"] = f"noise=drop='lt(pts\\,{self._landing.key_ticks})'"
        return options

    def remove_expected(self, messages: deque[str]) -> None:
        """Remove from what the decoder has said what it says for where it began."""
        if self._landing.is_open:
            for message in list(messages):
                if message.endswith(IN_OPEN_GROUP):
                    messages.remove(message)

    def inside(self, video: ffmpeg.Stream) -> ffmpeg.Stream:
        """Return the frames of the part, with the times that they have in it."""
        return self._filter(video, self._start, self._end)

    def shown_at_start(self, video: ffmpeg.Stream, frame_rate: float) -> ffmpeg.Stream:
        """Return the last frame that begins before the part, for as long as it stands in it."""
        before = self._filter(video, None, self._start)
        return before.filter("fps", fps=frame_rate, start_time=0, eof_action="pass")

    def from_start(self, video: ffmpeg.Stream) -> ffmpeg.Stream:
        """Return the frames that begin no earlier than the part, those behind it, too."""
        return self._filter(video, self._start, None)

    def num_filters(self) -> int:
        """Return how many filters `inside` makes."""
        return 2 + (self._divisor > 1)

    def max_frames(self, frame_rate: float, more_seconds: Fraction = Fraction(0)) -> int | None:
        """Return how many frames the part has at a constant rate; None if it has no end.

        Args:
            more_seconds: that its last frame stands after its end.
        """
        if self._end is None:
            return None
        seconds = (self._end - self._start) * self._tick + more_seconds
        return max(1, math.floor(seconds * Fraction(str(frame_rate)) + Fraction(1, 2)))

    def _filter(self, video: ffmpeg.Stream, start: int | None, end: int | None) -> ffmpeg.Stream:
        """Return the frames between two ticks; the part's start is their zero."""
        if self._divisor > 1:
            video = video.filter("settb", f"{self._tick.numerator}/{self._tick.denominator}")
        ends = {"start_pts": start, "end_pts": end}
        video = video.filter("trim", **{name: n for name, n in ends.items() if n is not None})
        return video.filter("setpts", f"PTS-({self._start})")


def usual_seconds(average_fps: float | None) -> Fraction:
    """Return how long a frame of a video stands after the end of a part, at most.

    Args:
        average_fps: None if it is not known.
    """
    if not average_fps:
        return Fraction(1, MIN_USUAL_FPS)
    # Where pictures stand for seconds, they end with the part.
    return 1 / Fraction(str(average_fps)) if average_fps >= MIN_USUAL_FPS else Fraction(0)


def check_start(source: Source, video_seconds: float | None) -> None:
    """Check, before anything is decoded, that a part is not far behind its video's end.

    Args:
        video_seconds: that the header says; None if it does not.

    Raises:
        VideoError: it is, however wrong the header may be.
    """
    if video_seconds is not None and source.offset_seconds > with_tolerance(video_seconds):
        raise VideoError(explain_nothing(source, video_seconds))


def explain_nothing(source: Source, video_seconds: float | None) -> str:
    """Return why a part has no frame, for people.

    Args:
        video_seconds: that the header says; None if it does not.
    """
    start = describe_time(source.offset_seconds)
    if video_seconds is None:
        return f"starts at {start} s, and the video has ended by then"
    video_seconds = round(video_seconds, 3)
    end = describe_time(video_seconds)
    if source.offset_seconds >= video_seconds:
        return f"starts at {start} s, and the video ends at {end} s"
    is_short = source.offset_seconds < video_seconds - END_TOLERANCE_SECONDS
    why = ": truncated or damaged" if is_short else ""
    return f"starts at {start} s, and there is no frame then, of {end} s by the header{why}"


def find_missing_end(
    source: Source,
    video_seconds: float | None,
    decoded_seconds: float,
    rounding_seconds: float = 0.0,
) -> str | None:
    """Return what of a part is behind the end of its video, for people, or None if nothing is.

    Args:
        video_seconds: that the header says; None if it does not.
        decoded_seconds: how far the video was decoded, from where the file starts.
        rounding_seconds: by which that may be too little.
    """
    end = source.end_seconds
    if end is None:
        return None
    needed = end - END_TOLERANCE_SECONDS
    is_long_enough = video_seconds is not None and video_seconds >= needed
    if is_long_enough or decoded_seconds + rounding_seconds >= needed:
        return None
    return f"ends at {decoded_seconds:.0f} s of {end:.0f} s: truncated"

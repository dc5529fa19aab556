"""How long a video's pictures last, as its header says.

Whatever else a file holds may last longer: sound, or subtitles. So what counts is what is said of
the track of the pictures, where a format says it.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import av

PROMISING = ("mov", "matroska", "avi", "asf", "flv")
"""Formats whose header states how long they are. In others (MPEG-TS, …), ffmpeg works the
duration out from what is there, and nothing is missing by it."""

TAG = re.compile(r"(\d{1,6}):(\d\d):(\d\d(?:\.\d+)?)")
"""How Matroska's tag `DURATION` is written, by ffmpeg and mkvmerge: 00:00:04.000000000."""

TAG_TOLERANCE_SECONDS = 1.0
"""A file that is longer by more than all its tags say has them from somewhere else."""


class Duration(NamedTuple):
    """What a header says.

    Attributes:
        seconds: from where the file starts, which is where ffmpeg counts from, to an end.
        is_of_pictures: it is the end of the last picture, not of whatever ends last.
    """

    seconds: float
    is_of_pictures: bool


def find_duration(
    container: av.container.InputContainer, stream: av.VideoStream
) -> Duration | None:
    """Return how long a stream of pictures lasts; None if the header does not say."""
    start = start_seconds(container)
    whole = container.duration / av.time_base if container.duration else None
    # Matroska counts from zero; some files of other programs from where they start.
    is_matroska = container.format.name.startswith("matroska")
    if is_matroska and whole is not None and whole > start:
        whole -= start
    end = _end_seconds(container, stream)
    if end is not None and is_matroska and whole is not None:
        ends = [_end_seconds(container, other) or 0 for other in container.streams]
        if whole > max(ends) - start + TAG_TOLERANCE_SECONDS:
            end = None
    if end is not None and end > start:
        return Duration(end - start, is_of_pictures=True)
    return None if whole is None else Duration(whole, is_of_pictures=False)


def start_seconds(container: av.container.InputContainer) -> float:
    """Return the time at which the first of a file's streams starts."""
    return (container.start_time or 0) / av.time_base


def _end_seconds(container: av.container.InputContainer, stream: av.stream.Stream) -> float | None:
    """Return the time at which a header says that a stream ends, on the clock of its packets."""
    kind = container.format.name.split(",")[0]
    time_base = stream.time_base or 0
    start = float((stream.start_time or 0) * time_base)
    if kind == "mov" and stream.duration:
        # libavformat gives a track in fragments the time at which its last fragment ends.
        return float(stream.duration * time_base) + (start if stream.frames else 0)
    if kind == "matroska":
        return _tagged_end(stream, start)
    if kind != "avi" or not isinstance(stream, av.VideoStream):
        return None
    # Of an AVI that was cut off, ffmpeg gives what is left; the header's frames are what was.
    rate = stream.average_rate
    return start + float(stream.frames / rate) if stream.frames and rate else None


def _tagged_end(stream: av.stream.Stream, start: float) -> float | None:
    for key, value in stream.metadata.items():
        match = TAG.match(value)
        if match and re.fullmatch(r"DURATION(-\w+)?", key):  # tags may name a language
            hours, minutes, seconds = map(float, match.groups())
            duration = 3600 * hours + 60 * minutes + seconds
            # mkvmerge's statistics count from the first picture, ffmpeg's tag from zero.
            is_statistics = any(name.startswith("_STATISTICS") for name in stream.metadata)
            return duration + start if is_statistics else duration
    return None

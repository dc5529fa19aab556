"""What is decoded."""

from __future__ import annotations

from typing import NamedTuple

from videofeatures.urls import is_url, redact


class Source(NamedTuple):
    """A video, or a part of one. The identity of a row's input, which travels as one from the CSV
    to the decoder.

    A frame belongs to the part if it begins at `start_seconds` or later, and before `end_seconds`.

    Attributes:
        path: of a file on a disk, or a URL.
        start_seconds: from the container's zero; None for the start of the video.
        end_seconds: from the container's zero; None for the end of the video.
    """

    path: str
    start_seconds: float | None = None
    end_seconds: float | None = None

    @property
    def shown_path(self) -> str:
        """The path as it may be written down: a URL without what is secret in it."""
        return redact(self.path) if is_url(self.path) else self.path

    @property
    def is_part(self) -> bool:
        """It is not the whole of the video."""
        return self.start_seconds is not None or self.end_seconds is not None

    @property
    def part(self) -> tuple[float | None, float | None]:
        """Where it starts and ends, in seconds."""
        return self.start_seconds, self.end_seconds

    @property
    def offset_seconds(self) -> float:
        """From the container's zero to the start."""
        return self.start_seconds or 0.0

    def seconds_of(self, video_seconds: float | None) -> float | None:
        """Return how long it lasts, as a part of a video of this length; None if it is not known.

        Args:
            video_seconds: None if it is not known.
        """
        end = self.end_seconds
        if end is None or (video_seconds is not None and video_seconds < end):
            end = video_seconds
        return None if end is None else max(end - self.offset_seconds, 0.0)

    def __str__(self) -> str:
        """Return the path, with the part behind it, for people: `a.mp4 [12.5–20 s]`."""
        if self.end_seconds is not None:
            ends = f"{describe_time(self.offset_seconds)}–{describe_time(self.end_seconds)}"
            return f"{self.shown_path} [{ends} s]"
        if self.start_seconds is not None:
            return f"{self.shown_path} [from {describe_time(self.start_seconds)} s]"
        return self.shown_path


def part_cells(source: Source) -> list[str]:
    """Return where a source starts and ends, in seconds, as cells of a table; "" for None."""
    return ["" if seconds is None else describe_time(seconds) for seconds in source.part]


def describe_time(seconds: float) -> str:
    """Return a number of seconds with all of its digits, as a CSV has them: 12.5, and 20."""
    return str(seconds).removesuffix(".0")

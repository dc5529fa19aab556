"""When frames are shown, and when what each row saw begins and ends.

All times are seconds from the container's zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from videofeatures.decoding.view import View


class RowTimes(NamedTuple):
    """When each row of a feature file is of.

    Attributes:
        start_seconds: (rows,), float64, at which the first frame that it saw is shown.
        timestamps: (rows,), float64, the middle between the other two.
        end_seconds: (rows,), float64, at which the last frame that it saw gives way to the next;
            frames that only fill a clip up do not count.
    """

    start_seconds: np.ndarray
    timestamps: np.ndarray
    end_seconds: np.ndarray

    def shifted(self, seconds: float) -> RowTimes:
        """Return those of rows that are so much later."""
        return RowTimes(*(each + seconds for each in self))

    def whole(self) -> RowTimes:
        """Return those of one row that has seen what all of these have."""
        start, end = self.start_seconds.min(keepdims=True), self.end_seconds.max(keepdims=True)
        return RowTimes(start, (start + end) / 2, end)


@dataclass
class FrameTimes:
    """When the frames are shown that became pixels.

    Attributes:
        starts, ends: (frames,), float64, in seconds times `rate`.
        rate: 1 where frames have times of their own.
        reached_seconds: how far decoding has come, while it goes on.
    """

    starts: np.ndarray = field(default_factory=lambda: np.empty(0))
    ends: np.ndarray = field(default_factory=lambda: np.empty(0))
    rate: float = 1.0
    reached_seconds: float = 0.0

    @classmethod
    def at_rate(cls, num_frames: int, view: View) -> FrameTimes:
        """Return those of a view with a constant rate.

        Frame k stands for the seconds k / rate to (k + 1) / rate.

        Args:
            num_frames: that became pixels: of a view with a `frame_step`, every so many-th.
        """
        assert view.constant_rate is not None
        starts = np.arange(num_frames, dtype=np.float64) * view.frame_step
        return cls(starts, starts + 1, view.constant_rate)

    @classmethod
    def spaced(cls, num_frames: int, duration_seconds: float) -> FrameTimes:
        """Return those of frames that are evenly spread: a guess, where nothing is known."""
        starts = np.arange(num_frames, dtype=np.float64) * (duration_seconds / max(1, num_frames))
        return cls(starts, np.append(starts[1:], duration_seconds)[:num_frames])


def row_times(times: FrameTimes, view: View) -> RowTimes:
    """Return when each row is of.

    Args:
        times: of all frames of the video that became pixels.
    """
    windows, num_frames = view.windows, len(times.starts)
    first = np.array(windows.starts(num_frames), np.int64)
    last = np.minimum(num_frames - 1, first + windows.span - 1)
    last -= (last - first) % windows.interval
    starts, ends = times.starts[first], times.ends[last]
    return RowTimes(starts / times.rate, (starts + ends) / 2 / times.rate, ends / times.rate)


def complete_times(
    seconds: Sequence[float], *, fps: float | None, until_seconds: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return when frames begin and end of which ffmpeg has told the times.

    A frame lasts until the next one is shown; the last one as long as half of the others do, or
    less.

    Args:
        seconds: at which each frame is shown, in order; NaN where there is no telling, which is
            taken for as long after the one before as is usual.
        fps: of the video, as its header says; None if it does not.
        until_seconds: the last frame is no longer shown than this, if that comes after it.

    Returns:
        (starts, ends), each (frames,), float64.
    """
    starts = np.array(seconds, np.float64)
    steps = np.diff(starts)
    steps = steps[steps > 0]  # NaN is not
    usual = float(np.median(steps)) if len(steps) else 1 / fps if fps else 0.0
    for k in np.flatnonzero(np.isnan(starts)):
        starts[k] = starts[k - 1] + usual if k else 0.0
    end = starts[-1:] + usual
    if until_seconds is not None and len(starts) and until_seconds > starts[-1]:
        # Without a step, nothing but this tells how long a frame is shown.
        end = np.minimum(end, until_seconds) if len(steps) else np.array([until_seconds])
    return starts, np.maximum(starts, np.append(starts[1:], end))

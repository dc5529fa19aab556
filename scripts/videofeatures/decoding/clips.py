"""Frames to what one feature sees: single frames, or clips of several."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import numpy as np

from videofeatures.decoding.view import View
from videofeatures.errors import VideoError

UNNEEDED = np.empty(0, np.uint8)
"""Stands for a frame that no clip is made of."""


class ClipCutter:
    """Cuts the frames of one video, as they come, into what each feature sees.

    Each frame is taken once, however many clips it is in, and no more of them are kept than one
    clip spans.

    A clip is (frames, height, width, 3), uint8; of a view without clips, it is a frame (height,
    width, 3). What the video does not have of the last clip is zeros (black), as in the original
    program, which pads before it subtracts the mean; or the last frame, for `repeat`, and for
    `shift`, where the video is shorter than a clip.
    """

    def __init__(self, view: View):
        self._view = view
        self._windows = view.windows
        self._kept: deque[np.ndarray] = deque(maxlen=self._windows.span)
        self._num_frames = 0
        self._num_clips = 0

    def add(self, frame: np.ndarray) -> np.ndarray | None:
        """Take a frame, (height, width, 3), uint8; return the clip that it completes, or None."""
        windows, number = self._windows, self._num_frames
        self._num_frames += 1
        if self._view.num_frames_per_clip is None:
            return None if number % windows.stride else frame
        self._kept.append(frame if windows.needs(number) else UNNEEDED)
        if self._num_frames != self._num_clips * windows.stride + windows.span:
            return None
        self._num_clips += 1
        return np.stack([self._kept[k] for k in range(0, windows.span, windows.interval)])

    def end(self) -> Iterator[np.ndarray]:
        """Yield the clips that need frames from behind the video's end.

        Raises:
            VideoError: there is no clip at all, for the video is too short for one, and `last_clip`
                is `drop`.
        """
        if self._view.num_frames_per_clip is None:
            return
        windows, kept = self._windows, self._kept
        for start in windows.starts(self._num_frames)[self._num_clips :]:
            first = start - (self._num_frames - len(kept))
            given = [kept[k] for k in range(first, len(kept), windows.interval)]
            is_black = self._view.last_clip == "zeros"
            filling = np.zeros_like(given[-1]) if is_black else given[-1]
            self._num_clips += 1
            yield np.stack(given + [filling] * (windows.length - len(given)))
        if self._num_frames and not self._num_clips:
            raise VideoError(
                f"shorter than one clip: {self._num_frames:,} frames of {windows.span:,}. Such "
                "videos are done with another `last_clip` than drop"
            )

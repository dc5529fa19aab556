"""Frames to what one feature sees: single frames, or clips of several."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np


def iter_clips(
    frames: Iterable[np.ndarray], num_frames_per_clip: int | None
) -> Iterator[tuple[np.ndarray, int]]:
    """Cut frames into clips without overlap; nothing is dropped.

    Args:
        frames: each (height, width, 3), uint8.
        num_frames_per_clip: None yields the frames themselves.

    Yields:
        (clip, num_frames): a clip (frames, height, width, 3), uint8, and how many frames
        of it are real. The last clip is filled up with zeros (black), as in the original
        program, which pads before it subtracts the mean. Without clips, (frame, 1).
    """
    if num_frames_per_clip is None:
        for frame in frames:
            yield frame, 1
        return
    clip, num_frames = None, 0
    for frame in frames:
        if clip is None:
            clip = np.zeros((num_frames_per_clip, *frame.shape), np.uint8)
        clip[num_frames] = frame
        num_frames += 1
        if num_frames == num_frames_per_clip:
            yield clip, num_frames
            clip, num_frames = None, 0
    if clip is not None:
        yield clip, num_frames


def row_timestamps(
    num_frames: int, frame_rate: float, num_frames_per_clip: int | None
) -> np.ndarray:
    """Middle of what each row saw, in seconds from the container's zero, float64.

    Frame k stands for the seconds k / frame_rate to (k + 1) / frame_rate; frames that
    were added to fill the last clip do not count.

    Args:
        num_frames: real frames of the whole video.
    """
    length = num_frames_per_clip or 1
    starts = np.arange(0, num_frames, length)
    ends = np.minimum(starts + length, num_frames)
    return (starts + ends) / 2 / frame_rate

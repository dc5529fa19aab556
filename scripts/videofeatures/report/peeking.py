"""Single frames of a video, for people: quick to get, anywhere in it.

They are not what a network sees, to the pixel: `video` streams those.
"""

from __future__ import annotations

from collections.abc import Sequence

import av
import numpy as np
from PIL import Image

from videofeatures.decoding.probe import check_is_file, first_video_stream, open_container
from videofeatures.report.thumbnails import thumbnail

SEEK_SECONDS = 8
"""To a time that is no farther ahead, decoding on is about as quick as seeking: groups of
pictures are up to 10 s long."""

MAX_FRAMES_PER_SEEK = 600
"""Decoded for one picture at most; then the one that was reached is taken."""


def frames_at(
    path: str, times: Sequence[float], *, height: int, local_files_only: bool = True
) -> list[Image.Image | None]:
    """The frame that is shown at each of these times, upright and in proportion.

    Args:
        times: in seconds from the container's zero, rising.
        height: of the pictures, in pixels.

    Returns:
        As many as times; None where there is nothing to see.

    Raises:
        VideoError, av.FFmpegError: the file cannot be read.
    """
    check_is_file(path)
    pictures: list[Image.Image | None] = []
    with open_container(path, local_files_only=local_files_only) as container:
        stream = first_video_stream(container)
        if stream is None or stream.time_base is None:
            return [None] * len(times)
        stream.thread_type = "AUTO"
        start = (container.start_time or 0) / av.time_base
        reader = _Reader(container, stream)
        for seconds in times:
            frame = reader.frame_at(start + seconds)
            pictures.append(_picture(frame, stream, height) if frame is not None else None)
    return pictures


class _Reader:
    """Frames of one stream, at rising times."""

    def __init__(self, container: av.container.InputContainer, stream: av.VideoStream):
        self._container = container
        self._stream = stream
        self._frames = container.decode(stream)
        self._shown: av.VideoFrame | None = None
        self._next: av.VideoFrame | None = None

    def frame_at(self, seconds: float) -> av.VideoFrame | None:
        """The last frame that begins no later, or the nearest that can be had."""
        known = self._next or self._shown
        if known is None or seconds - (known.time or 0) > SEEK_SECONDS:
            self._seek(seconds)
        for _ in range(MAX_FRAMES_PER_SEEK):
            if self._next is not None and (self._next.time or 0) > seconds:
                break
            self._shown = self._next or self._shown
            try:
                self._next = next(self._frames)
            except (StopIteration, av.FFmpegError):
                self._next = None
                break
        return self._shown or self._next

    def _seek(self, seconds: float) -> None:
        assert self._stream.time_base is not None
        try:
            offset = int(seconds / self._stream.time_base)
            self._container.seek(offset, stream=self._stream, backward=True)
        except av.FFmpegError:
            return  # no index: it is decoded from where it is
        self._frames = self._container.decode(self._stream)
        self._next = None


def _picture(frame: av.VideoFrame, stream: av.VideoStream, height: int) -> Image.Image:
    aspect = float(stream.sample_aspect_ratio or 1)
    # Half of a 4K frame's time is its conversion at full size: ffmpeg's scaler does both at once.
    turned = abs(frame.rotation) % 180 == 90
    scale = height / (frame.width * aspect if turned else frame.height)
    small = frame.reformat(
        width=max(2, round(frame.width * aspect * scale)),
        height=max(2, round(frame.height * scale)),
        format="rgb24",
    ).to_ndarray()
    upright = np.ascontiguousarray(np.rot90(small, round(frame.rotation / 90)))
    return thumbnail(upright, height)

"""Frames of a video as small pictures, for people."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import av
import numpy as np
from PIL import Image, ImageDraw

from videofeatures.decoding.duration import start_seconds
from videofeatures.decoding.probe import (
    check_is_file,
    first_video_stream,
    has_decoder,
    open_container,
)

SEEK_SECONDS = 8
"""To a time that is no farther ahead, decoding on is about as quick as seeking: groups of
pictures are up to 10 s long."""

MAX_FRAMES_PER_SEEK = 600
"""Decoded for one picture at most; then the one that was reached is taken."""

JPEG_QUALITY = 70
CAPTION_HEIGHT = 14
SHEET_HEIGHT = 160


def frames_at(
    path: str, times: Sequence[float], *, height: int, local_files_only: bool = True
) -> list[Image.Image | None]:
    """Return the frame that is shown at each of these times, upright and in proportion.

    That is quick, anywhere in a video, and not what a network sees, to the pixel.

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
        if stream is None or stream.time_base is None or not has_decoder(stream):
            return [None] * len(times)
        stream.thread_type = "AUTO"
        start = _start_seconds(container, stream)
        reader = _Reader(container, stream, start)
        for seconds in times:
            frame = reader.frame_at(start + seconds)
            pictures.append(_upright(frame, stream, height) if frame is not None else None)
    return pictures


def _start_seconds(container: av.container.InputContainer, stream: av.VideoStream) -> float:
    """Return the time, on the clock of a stream, from which ffmpeg counts."""
    if container.format.name == "mpegts" and stream.start_time and stream.time_base:
        return float(stream.start_time * stream.time_base)
    return start_seconds(container)


class _Reader:
    """Frames of one stream, at rising times."""

    def __init__(
        self,
        container: av.container.InputContainer,
        stream: av.VideoStream,
        start_seconds: float,
    ):
        self._container = container
        self._start_seconds = start_seconds
        self._stream = stream
        self._frames = container.decode(stream)
        self._shown: av.VideoFrame | None = None
        self._next: av.VideoFrame | None = None

    def frame_at(self, seconds: float) -> av.VideoFrame | None:
        """Return the last frame that begins no later, or the nearest that can be had."""
        reached = self._next or self._shown
        reached_seconds = self._start_seconds if reached is None else (reached.time or 0)
        if seconds - reached_seconds > SEEK_SECONDS:
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


def _upright(frame: av.VideoFrame, stream: av.VideoStream, height: int) -> Image.Image:
    """Return a frame as it is meant to be seen, at another height."""
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


def middle_frame(pixels: np.ndarray) -> np.ndarray:
    """Return a frame (height, width, 3) itself, or the middle one of a clip (frames, …)."""
    return pixels if pixels.ndim == 3 else pixels[len(pixels) // 2]


def thumbnail(frame: np.ndarray, height: int) -> Image.Image:
    """Return a frame (height, width, 3), uint8, at another height, in pixels."""
    picture = Image.fromarray(frame)
    width = max(1, round(picture.width * height / picture.height))
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def data_url(picture: Image.Image) -> str:
    """Return a picture as a URL that holds it, as a JPEG."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def contact_sheet(pixels: Sequence[np.ndarray], captions: Sequence[str]) -> Image.Image:
    """Return frames or clips side by side, each with its caption below.

    Args:
        pixels: frames (height, width, 3) or clips (frames, height, width, 3), uint8, as the
            network was given them, at least one.
        captions: one for each of them, or none.
    """
    pictures = [thumbnail(middle_frame(clip), SHEET_HEIGHT) for clip in pixels]
    width = sum(picture.width for picture in pictures)
    sheet = Image.new("RGB", (width, SHEET_HEIGHT + CAPTION_HEIGHT * bool(captions)), "white")
    draw, left = ImageDraw.Draw(sheet), 0
    for k, picture in enumerate(pictures):
        sheet.paste(picture, (left, 0))
        if captions:
            text = captions[k]
            while len(text) > 1 and draw.textlength(text) > picture.width - 4:
                text = text[:-1]
            draw.text((left + 2, SHEET_HEIGHT + 1), text, fill="black")
        left += picture.width
    return sheet

"""Facts about one video, from its header and its first frame."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from fractions import Fraction

import av

from videofeatures.decoding.ffmpeg import (
    PLAYLIST,
    file_url,
    read_stderr_lines,
    reason_in,
    restrictions,
)
from videofeatures.errors import VideoError

NO_FILE = "no such file"


@dataclass(frozen=True)
class VideoMetadata:
    """Facts about a video's first real video stream (cover art is none).

    Attributes:
        width, height: in coded pixels, after rotation.
        sample_aspect_ratio: width of one pixel by its height, after rotation.
        duration_seconds: of the file, as its header says; None if it does not.
        average_fps: of the stream, as its header says; None if it does not.
        codec: ffmpeg's name of it.
    """

    width: int
    height: int
    sample_aspect_ratio: Fraction
    duration_seconds: float | None
    average_fps: float | None
    codec: str


def probe_video(path: str, *, local_files_only: bool = True) -> VideoMetadata:
    """Read a video's header and its first frame, which tells how it is rotated.

    Args:
        local_files_only: refuse playlists and whatever else makes ffmpeg open other files.

    Raises:
        VideoError: the file is missing, unreadable, or has no picture.
    """
    check_is_file(path)
    try:
        with open_container(path, local_files_only=local_files_only) as container:
            stream = first_video_stream(container)
            if stream is None:
                cover = " but cover art" if container.streams.video else ""
                raise VideoError(f"no video stream{cover}")
            stream.codec_context.thread_count = 1
            frame = _first_frame(container, stream)
            if frame is None:
                raise VideoError(
                    "no frame of the video can be decoded",
                    read_stderr_lines(path, local_files_only=local_files_only),
                )
            # As ffmpeg does: anything else than a quarter turn leaves width and height.
            turned = abs(frame.rotation) % 180 == 90
            aspect = Fraction(stream.sample_aspect_ratio or 1)
            width, height = frame.width, frame.height
            rate = stream.average_rate
            return VideoMetadata(
                width=height if turned else width,
                height=width if turned else height,
                sample_aspect_ratio=1 / aspect if turned else aspect,
                duration_seconds=_duration_seconds(container, stream),
                average_fps=float(rate) if rate else None,
                codec=stream.codec_context.name,
            )
    except av.FFmpegError as error:
        lines = read_stderr_lines(path, local_files_only=local_files_only)
        general, told = error.strerror or str(error), reason_in(lines)
        if told in (None, PLAYLIST, general):
            raise VideoError(told or general, lines) from None
        raise VideoError(f"{general}: {told}", lines) from None
    except OSError as error:
        raise VideoError(error.strerror or str(error)) from None


def read_duration(path: str, *, local_files_only: bool = True) -> float | None:
    """Length in seconds as a video's header says, without decoding; None if it does not say.

    Raises:
        VideoError: the file cannot be read, or has no video stream.
    """
    check_is_file(path)
    try:
        with open_container(path, local_files_only=local_files_only) as container:
            stream = first_video_stream(container)
            if stream is None:
                raise VideoError("no video stream")
            return _duration_seconds(container, stream)
    except (av.FFmpegError, OSError) as error:
        raise VideoError(error.strerror or str(error)) from None


def check_is_file(path: str) -> None:
    """Raises VideoError if `path` is not a file that can be read; never waits for a pipe."""
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise VideoError("is a folder")
        if not stat.S_ISREG(mode):
            raise VideoError("is not a file but a pipe or a device: give its content as a file")
        with open(path, "rb"):
            pass
    except FileNotFoundError:
        is_link = os.path.islink(path)
        raise VideoError("a link to a file that is not there" if is_link else NO_FILE) from None
    except OSError as error:
        raise VideoError(error.strerror or str(error)) from None


def open_container(path: str, *, local_files_only: bool) -> av.container.InputContainer:
    """Open a file with PyAV, with the same restrictions as ffmpeg. Raises av.FFmpegError."""
    options = restrictions(local_files_only)
    return av.open(file_url(path), options=options, metadata_errors="replace")


def first_video_stream(container: av.container.InputContainer) -> av.VideoStream | None:
    """What ffmpeg calls `V:0`: the first video stream that is not cover art."""
    cover = av.stream.Disposition.attached_pic
    return next((s for s in container.streams.video if not s.disposition & cover), None)


def _duration_seconds(
    container: av.container.InputContainer, stream: av.VideoStream
) -> float | None:
    # Of an AVI that was cut off, ffmpeg gives what is left; the header's frames are the promise.
    if container.format.name == "avi" and stream.frames and stream.average_rate:
        return float(stream.frames / stream.average_rate)
    return container.duration / av.time_base if container.duration else None


def _first_frame(
    container: av.container.InputContainer, stream: av.VideoStream
) -> av.VideoFrame | None:
    for packet in container.demux(stream):
        try:
            for frame in packet.decode():
                return frame
        except av.InvalidDataError:
            continue  # ffmpeg, too, goes on after a damaged packet
    return None


def resized_size(
    metadata: VideoMetadata, resize_size: int, *, square_pixels: bool
) -> tuple[int, int]:
    """(width, height) with a short side of `resize_size` and a truncated long side.

    Truncated, not rounded, as in the original program: 1920×1080 is 398×224.

    Args:
        square_pixels: give anamorphic video its proportions. The original did not.
    """
    width = metadata.width * (metadata.sample_aspect_ratio if square_pixels else Fraction(1))
    height = metadata.height
    if height >= width:
        return resize_size, int(height * resize_size / width)
    return int(width * resize_size / height), resize_size

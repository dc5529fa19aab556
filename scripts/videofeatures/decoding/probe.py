"""A video's metadata, from its header and its first frame, by libav.

This imports PyAV, and a hostile file may crash libav or make it hang: a job asks for it in a
process of its own, by `libav`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from fractions import Fraction

import av

from videofeatures.decoding.decoder import VideoMetadata
from videofeatures.decoding.formats import file_url, input_options
from videofeatures.errors import VideoError


def ignore_packet() -> None:
    """Do nothing."""


def probe_video(
    path: str,
    *,
    local_files_only: bool = True,
    on_packet: Callable[[], None] = ignore_packet,
) -> VideoMetadata | None:
    """Read a video's header and its first frame, which tells how it is rotated.

    Args:
        local_files_only: see `input_options`.
        on_packet: is called for each packet that is read.

    Returns:
        None if no frame can be decoded.

    Raises:
        VideoError: the file is missing, or has no picture.
        av.FFmpegError, OSError: the file cannot be read.
    """
    check_is_file(path)
    with open_container(path, local_files_only=local_files_only) as container:
        stream = first_video_stream(container)
        if stream is None:
            cover = " but cover art" if container.streams.video else ""
            raise VideoError(f"no video stream{cover}")
        stream.codec_context.thread_count = 1
        frame = _first_frame(container, stream, on_packet)
        if frame is None:
            return None
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


def read_duration(path: str, *, local_files_only: bool = True) -> float | None:
    """Return a video's seconds as its header says, without decoding; None if it does not say.

    Raises:
        VideoError: the file is missing, or has no video stream.
        av.FFmpegError, OSError: the file cannot be read.
    """
    check_is_file(path)
    with open_container(path, local_files_only=local_files_only) as container:
        stream = first_video_stream(container)
        if stream is None:
            raise VideoError("no video stream")
        return _duration_seconds(container, stream)


def check_is_file(path: str) -> None:
    """Check that a path is one of a file that can be read, without waiting for a pipe.

    Raises:
        VideoError: it is not.
    """
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
        raise VideoError(
            "a link to a file that is not there" if is_link else "no such file"
        ) from None
    except OSError as error:
        raise VideoError(error.strerror or str(error)) from None


def open_container(path: str, *, local_files_only: bool) -> av.container.InputContainer:
    """Open a file with PyAV, as ffmpeg may open it.

    Args:
        local_files_only: see `input_options`.

    Raises:
        av.FFmpegError, OSError: it cannot be read.
    """
    options = input_options(local_files_only=local_files_only)
    return av.open(file_url(path), options=options, metadata_errors="replace")


def first_video_stream(container: av.container.InputContainer) -> av.VideoStream | None:
    """Return what ffmpeg calls `V:0`: the first video stream that is not cover art."""
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
    container: av.container.InputContainer, stream: av.VideoStream, on_packet: Callable[[], None]
) -> av.VideoFrame | None:
    for packet in container.demux(stream):
        on_packet()
        try:
            for frame in packet.decode():
                return frame
        except av.InvalidDataError:
            continue  # ffmpeg, too, goes on after a damaged packet
    return None

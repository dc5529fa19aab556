"""A video's metadata, from its header and its first frame, by libav.

This imports PyAV, and a hostile file may crash libav or make it hang: a job asks for it in a
process of its own, by `libav`.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import struct
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import av
from av.sidedata.sidedata import Type

from videofeatures.decoding.decoder import VideoMetadata
from videofeatures.decoding.duration import find_duration
from videofeatures.decoding.formats import file_url, input_options, literal_path
from videofeatures.errors import VideoError, reading_error


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
        if not has_decoder(stream):
            name = _codec_name(container, stream)
            codec = f"the codec {name!r}" if name else "its codec, which has no name"
            raise VideoError(f"no decoder for {codec}")
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
            pixel_format=frame.format.name,
            display_matrix=_display_matrix(frame),
            container=container.format.name.split(",")[0],
        )


def read_duration(path: str, *, local_files_only: bool = True) -> float | None:
    """Return how long a video's pictures last, as its header says; None if it does not.

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
        raise reading_error(error) from None
    except ValueError as error:  # a zero byte, say
        raise VideoError(f"no path of a file: {error}") from None


@contextlib.contextmanager
def open_container(path: str, *, local_files_only: bool) -> Iterator[av.container.InputContainer]:
    """Open a file with PyAV, as ffmpeg may open it, and close it.

    Args:
        local_files_only: see `input_options`.

    Raises:
        av.FFmpegError, OSError: it cannot be read.
    """
    with (
        literal_path(path) as literal,
        av.open(
            file_url(literal),
            options=input_options(local_files_only=local_files_only),
            metadata_errors="replace",
        ) as container,
    ):
        yield container


def iter_packets(
    container: av.container.InputContainer,
    *streams: av.stream.Stream,
    on_unknown: Callable[[], None] = ignore_packet,
) -> Iterator[av.Packet]:
    """Yield the packets of some streams, or of all, and an empty one of each at the end.

    Those of a stream that appears in the middle of a file, as the sound of an FLV may, are passed
    over: PyAV knows the streams that were there at the beginning, and raises an IndexError.

    Args:
        on_unknown: is called for each packet of such a stream.

    Raises:
        av.FFmpegError: the file cannot be read on.
    """
    while True:
        try:
            yield from container.demux(*streams)
            return
        except IndexError:
            on_unknown()  # it goes on behind that packet


def first_video_stream(container: av.container.InputContainer) -> av.VideoStream | None:
    """Return what ffmpeg calls `V:0`: the first video stream that is not cover art."""
    cover = av.stream.Disposition.attached_pic
    return next((s for s in container.streams.video if not s.disposition & cover), None)


def has_decoder(stream: av.VideoStream) -> bool:
    """Return whether libav can decode a stream: one that it cannot has no codec context."""
    context: av.VideoCodecContext | None = stream.codec_context
    return context is not None


def _codec_name(container: av.container.InputContainer, stream: av.VideoStream) -> str | None:
    """Return the name of a codec without a decoder, or the letters that the file has for it."""
    # Only libav's description has it, which it makes for its log.
    av.logging.set_level(av.logging.INFO)
    try:
        text: str = container.dumps_format()  # type: ignore[attr-defined]
    finally:  # as `worker` has it
        av.logging.restore_default_callback()
        av.logging.set_libav_level(av.logging.ERROR)
    line = rf"Stream #\d+:{stream.index}\b.*: Video: (\w+)([^,\n]*\((\S+) / 0x[0-9A-F]+\))?"
    match = re.search(line, text)
    name, letters = match.group(1, 3) if match else (None, None)
    return letters if name in (None, "none", "unknown") else name


def _duration_seconds(
    container: av.container.InputContainer, stream: av.VideoStream
) -> float | None:
    duration = find_duration(container, stream)
    return None if duration is None else duration.seconds


def _display_matrix(frame: av.VideoFrame) -> tuple[int, ...] | None:
    data: Any = frame.side_data.get(Type.DISPLAYMATRIX)  # type: ignore[call-overload]
    return None if data is None else struct.unpack("9i", bytes(data)[:36])


def _first_frame(
    container: av.container.InputContainer, stream: av.VideoStream, on_packet: Callable[[], None]
) -> av.VideoFrame | None:
    for packet in iter_packets(container, stream):
        on_packet()
        try:
            for frame in packet.decode():
                return frame
        except av.InvalidDataError:
            continue  # ffmpeg, too, goes on after a damaged packet
    return None

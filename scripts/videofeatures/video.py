"""One video: its facts, and its frames as ffmpeg streams them.

ffmpeg runs in its own process, so that a decoder that crashes costs one row. Its
binary is the one that `imageio-ffmpeg` ships; set `IMAGEIO_FFMPEG_EXE` for another.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
import ffmpeg
import imageio_ffmpeg
import numpy as np

from videofeatures.errors import VideoError

FFMPEG_LINES = 20
"""Lines of ffmpeg's complaints that are kept for the user."""

PIPE_BYTES = 1 << 20
"""Size asked for the pipe from ffmpeg: Linux's limit for a plain user. The default of
64 KiB makes ffmpeg and Python wait for each other several times a frame."""

EXTRA_NICENESS = 10
"""How much ffmpeg gives way to the network. Where both share the cores, ffmpeg takes those
that the network leaves, and the queue between them evens it out: otherwise one thread of a
convolution waits for the one whose core ffmpeg has, a tenth of the time in all (measured)."""


@dataclass(frozen=True)
class VideoMetadata:
    """Facts about a video's first real video stream (cover art is none).

    Attributes:
        width, height: in coded pixels, after rotation.
        pixel_aspect_ratio: width of one pixel by its height, after rotation.
        duration_seconds: of the file, as its header says; None if it does not.
        average_fps: of the stream, as its header says; None if it does not.
        codec: ffmpeg's name of it.
    """

    width: int
    height: int
    pixel_aspect_ratio: Fraction
    duration_seconds: float | None
    average_fps: float | None
    codec: str


def probe_video(path: str) -> VideoMetadata:
    """Read a video's header and its first frame, which tells how it is rotated.

    Raises:
        VideoError: the file is missing, unreadable, or has no picture.
    """
    try:
        with open(path, "rb"):
            pass
        with av.open(file_url(path), metadata_errors="replace") as container:
            stream = first_video_stream(container)
            if stream is None:
                raise VideoError("no video stream")
            stream.codec_context.thread_count = 1
            frame = _first_frame(container, stream)
            if frame is None:
                raise VideoError("no frame of the video can be decoded")
            # As ffmpeg does: anything else than a quarter turn leaves width and height.
            turned = abs(frame.rotation) % 180 == 90
            aspect = Fraction(stream.sample_aspect_ratio or 1)
            width, height = frame.width, frame.height
            rate, duration = stream.average_rate, container.duration
            return VideoMetadata(
                width=height if turned else width,
                height=width if turned else height,
                pixel_aspect_ratio=1 / aspect if turned else aspect,
                duration_seconds=duration / av.time_base if duration else None,
                average_fps=float(rate) if rate else None,
                codec=stream.codec_context.name,
            )
    except av.FFmpegError as error:
        raise VideoError(error.strerror or str(error), _log_of(error)) from None
    except FileNotFoundError:
        raise VideoError("no such file") from None
    except OSError as error:
        raise VideoError(error.strerror or str(error)) from None


def first_video_stream(container: av.container.InputContainer) -> av.VideoStream | None:
    """What ffmpeg calls `V:0`: the first video stream that is not cover art."""
    cover = av.stream.Disposition.attached_pic
    return next((s for s in container.streams.video if not s.disposition & cover), None)


def _first_frame(container: av.container.InputContainer, stream: av.VideoStream):
    for packet in container.demux(stream):
        try:
            for frame in packet.decode():
                return frame
        except av.InvalidDataError:
            continue  # ffmpeg, too, goes on after a damaged packet
    return None


def _log_of(error: av.FFmpegError) -> list[str]:
    return [error.log[2].strip()] if error.log else []


def file_url(path: str) -> str:
    """The path as ffmpeg takes it literally, whatever is in it (`-`, `:`, `%d`)."""
    return f"file:{path}"


def resized_size(
    metadata: VideoMetadata, resize_size: int, *, square_pixels: bool
) -> tuple[int, int]:
    """(width, height) with a short side of `resize_size` and a truncated long side.

    Truncated, not rounded, as in the original program: 1920×1080 is 398×224.

    Args:
        square_pixels: give anamorphic video its proportions. The original did not.
    """
    width = metadata.width * (metadata.pixel_aspect_ratio if square_pixels else Fraction(1))
    height = metadata.height
    if height >= width:
        return resize_size, int(height * resize_size / width)
    return int(width * resize_size / height), resize_size


def iter_frames(
    path: str,
    size: tuple[int, int],
    *,
    frame_rate: float,
    crop_size: int = 0,
    interpolation: str = "bilinear",
    hwaccel: str = "none",
    packet_filter: str | None = None,
    num_threads: int = 1,
) -> Iterator[np.ndarray]:
    """Stream a video's frames at a constant rate, each (height, width, 3), uint8, RGB.

    Memory is constant, whatever the length of the video. ffmpeg's `fps` filter rounds to
    the nearest: frame k is the last one shown before second (k + 0.5) / frame_rate. A
    video too short for a single frame, such as a still image, gives its first one.

    Args:
        size: (width, height) to resize to.
        crop_size: side of the centre crop; 0 for none.
        interpolation: of ffmpeg's scaler. Always given to it: its default changed from
            bilinear to bicubic with version 5.
        hwaccel: device that ffmpeg decodes on, as its option `-hwaccel`.
        packet_filter: bitstream filter between the file and the decoder, of `skip_filter`.
        num_threads: threads of the decoder.

    Raises:
        VideoError: ffmpeg failed, or gave no frame.
    """
    # Capital V leaves cover art out.
    options = {"threads": num_threads}
    if hwaccel != "none":
        options["hwaccel"] = hwaccel
    if packet_filter is not None:
        options["bsf:V:0"] = packet_filter
    video = ffmpeg.input(file_url(path), **options)["V:0"]

    def run(stream: ffmpeg.Stream, **output_options) -> Iterator[np.ndarray]:
        stream = _resize_and_crop(stream, size, crop_size, interpolation)
        frame_size = (crop_size, crop_size) if crop_size else size
        return _run(stream, frame_size, **output_options)

    frame = None
    for frame in run(video.filter("fps", fps=frame_rate)):
        yield frame
    if frame is None:
        for frame in run(video, vframes=1):
            yield frame
    if frame is None:
        raise VideoError("ffmpeg decoded no frame")


def _resize_and_crop(
    stream: ffmpeg.Stream, size: tuple[int, int], crop_size: int, interpolation: str
) -> ffmpeg.Stream:
    width, height = size
    stream = stream.filter("scale", width, height, flags=interpolation)
    if crop_size:
        x, y = int((width - crop_size) / 2), int((height - crop_size) / 2)
        stream = stream.filter("crop", crop_size, crop_size, x, y)
    return stream


def _run(stream: ffmpeg.Stream, size: tuple[int, int], **output_options) -> Iterator[np.ndarray]:
    """Run ffmpeg and yield the frames of (width, height) that it writes."""
    width, height = size
    command = stream.output(
        "pipe:", format="rawvideo", pix_fmt="rgb24", **output_options
    ).global_args("-nostdin", "-hide_banner", "-loglevel", "error")
    process = command.run_async(
        cmd=imageio_ffmpeg.get_ffmpeg_exe(), pipe_stdout=True, pipe_stderr=True
    )
    _lower_priority(process.pid)
    lines: deque[str] = deque(maxlen=FFMPEG_LINES)
    # stderr is read all the time: ffmpeg would stop when its pipe is full.
    listener = threading.Thread(target=_listen, args=(process.stderr, lines), daemon=True)
    listener.start()
    try:
        _enlarge_pipe(process.stdout)
        while True:
            frame = np.empty((height, width, 3), np.uint8)
            num_bytes = process.stdout.readinto(memoryview(frame).cast("B"))
            if num_bytes < frame.nbytes:
                break
            yield frame
        return_code = process.wait()
        listener.join()
        if return_code or num_bytes:
            reason = lines[0] if lines else f"ffmpeg ended with {return_code}"
            raise VideoError(f"ffmpeg failed: {reason}", lines)
    finally:  # also when the caller stops in the middle
        process.kill()
        process.wait()
        listener.join()
        process.stdout.close()
        process.stderr.close()


def _lower_priority(pid: int) -> None:
    niceness = os.getpriority(os.PRIO_PROCESS, 0) + EXTRA_NICENESS
    with contextlib.suppress(ProcessLookupError):  # it has ended already
        os.setpriority(os.PRIO_PROCESS, pid, niceness)  # the kernel stops at 19


def _listen(stderr, lines: deque[str]) -> None:
    for line in stderr:
        lines.append(line.decode(errors="replace").rstrip())


def _enlarge_pipe(stdout) -> None:
    try:
        import fcntl

        fcntl.fcntl(stdout, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    except (ImportError, AttributeError, OSError):
        pass  # not Linux, or the user's share of pipe memory is spent: only slower


def ffmpeg_version() -> str:
    """Version of the ffmpeg that decodes, in its own words."""
    return imageio_ffmpeg.get_ffmpeg_version()

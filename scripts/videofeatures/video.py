"""One video: its facts, and its frames as ffmpeg streams them.

ffmpeg runs in its own process, so that a decoder that crashes costs one row. Its
binary is the one that `imageio-ffmpeg` ships; set `IMAGEIO_FFMPEG_EXE` for another.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import stat
import subprocess
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import IO, NamedTuple

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

LAST_SECONDS = 5
"""How long ffmpeg may take to end when it was killed, or has nothing more to say. One that the
kernel holds, on a disk that does not answer, say, is left to itself."""

CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "mpegts", "mpeg", "mpegvideo", "m4v", "flv",
    "live_flv", "asf", "asf_o", "ogg", "gif", "mxf", "nut", "rm", "dv", "ivf", "wtv", "gxf", "h261",
    "h263", "h264", "hevc", "vvc", "av1", "obu", "vc1", "cavsvideo", "dirac", "dnxhd", "mjpeg",
    "dhav", "nsv", "nuv", "pva", "swf", "ty", "vivo", "bink", "smk", "roq", "flic", "yuv4mpegpipe",
    "webp_anim", "apng", "jpegxl_anim", "image2", "bmp_pipe", "dpx_pipe", "exr_pipe", "gif_pipe",
    "hdr_pipe", "j2k_pipe", "jpeg_pipe", "jpegxl_pipe", "pgm_pipe", "png_pipe", "ppm_pipe",
    "qoi_pipe", "tiff_pipe", "webp_pipe",
)  # fmt: skip
"""ffmpeg's names of the formats that hold pictures themselves. Playlists and the like (hls, concat,
dash, imf, sdp, …) tell ffmpeg to open other files, or the network, whatever they are named."""

EXTRA_NICENESS = 10
"""How much ffmpeg gives way to the network. Where both share the cores, ffmpeg takes those
that the network leaves, and the queue between them evens it out: otherwise one thread of a
convolution waits for the one whose core ffmpeg has, a tenth of the time in all (measured)."""


NO_FILE = "no such file"
PLAYLIST = (
    "a playlist, or a format that makes ffmpeg open other files. If you trust it, set "
    "`local_files_only: false`"
)


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
                    _complaints(path, local_files_only=local_files_only),
                )
            # As ffmpeg does: anything else than a quarter turn leaves width and height.
            turned = abs(frame.rotation) % 180 == 90
            aspect = Fraction(stream.sample_aspect_ratio or 1)
            width, height = frame.width, frame.height
            rate = stream.average_rate
            return VideoMetadata(
                width=height if turned else width,
                height=width if turned else height,
                pixel_aspect_ratio=1 / aspect if turned else aspect,
                duration_seconds=_duration_seconds(container, stream),
                average_fps=float(rate) if rate else None,
                codec=stream.codec_context.name,
            )
    except av.FFmpegError as error:
        lines = _complaints(path, local_files_only=local_files_only)
        general, told = error.strerror or str(error), _reason(lines)
        if told in (None, PLAYLIST, general):
            raise VideoError(told or general, lines) from None
        raise VideoError(f"{general}: {told}", lines) from None
    except OSError as error:
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
    options = _restrictions(local_files_only)
    return av.open(file_url(path), options=options, metadata_errors="replace")


def _restrictions(local_files_only: bool) -> dict[str, str]:
    # A protocol whitelist alone would let a playlist name files beside it.
    if not local_files_only:
        return {}
    return {"format_whitelist": ",".join(CONTAINERS), "protocol_whitelist": "file"}


def _complaints(path: str, *, local_files_only: bool) -> list[str]:
    """What ffmpeg itself says about a file that PyAV could not read."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-hide_banner", "-loglevel", "error"]
    for key, value in _restrictions(local_files_only).items():
        command += [f"-{key}", value]
    command += ["-i", file_url(path), "-map", "0:v:0", "-frames:v", "1", "-f", "null", "-"]
    try:
        told = subprocess.run(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=LAST_SECONDS
        ).stderr
    except subprocess.TimeoutExpired as error:
        told = error.stderr or b""
    return told.decode(errors="replace").splitlines()[:FFMPEG_LINES]


def _reason(lines: Iterable[str]) -> str | None:
    """The first thing that ffmpeg says of a cause, without the addresses of its parts."""
    for line in lines:
        text = re.sub(r"^(\[[^]]*\] ?)+", "", line).strip()
        if "not on whitelist" in text or "Not detecting m3u8/hls" in text:
            return PLAYLIST
        if text and not text.startswith(("Error opening input", "Conversion failed")):
            return text
    return None


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


def _first_frame(container: av.container.InputContainer, stream: av.VideoStream):
    for packet in container.demux(stream):
        try:
            for frame in packet.decode():
                return frame
        except av.InvalidDataError:
            continue  # ffmpeg, too, goes on after a damaged packet
    return None


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
    timeout_seconds: float | None = None,
    local_files_only: bool = True,
    complaints: deque[str] | None = None,
    stopped: threading.Event | None = None,
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
        timeout_seconds: how long ffmpeg may say nothing while it is waited for; None for ever.
        local_files_only: as in `probe_video`.
        complaints: takes the last lines that ffmpeg says; a frame may come all the same.
        stopped: ends the wait for ffmpeg when it is set.

    Raises:
        VideoError: ffmpeg failed, gave no frame, or did not answer.
    """
    complaints = deque(maxlen=FFMPEG_LINES) if complaints is None else complaints
    options = {"threads": num_threads, **_restrictions(local_files_only)}
    if hwaccel != "none":
        options["hwaccel"] = hwaccel
    if packet_filter is not None:
        options["bsf:V:0"] = packet_filter
    video = ffmpeg.input(file_url(path), **options)["V:0"]  # capital V leaves cover art out

    def run(stream: ffmpeg.Stream, **output_options) -> Iterator[np.ndarray]:
        stream = _resize_and_crop(stream, size, crop_size, interpolation)
        frame_size = (crop_size, crop_size) if crop_size else size
        patience = Patience(timeout_seconds, stopped)
        return _run(stream, frame_size, patience, complaints, **output_options)

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


class Patience(NamedTuple):
    """How long to wait for ffmpeg: see `iter_frames`."""

    timeout_seconds: float | None
    stopped: threading.Event | None

    def wait(self, poll: select.poll) -> None:
        """Wait for what a poll object watches. TimeoutError if it takes too long."""
        waited = 0.0
        while True:
            limit = self.timeout_seconds
            step = 1.0 if limit is None else min(1.0, limit - waited)
            if poll.poll(step * 1000):
                return
            waited += step
            if limit is not None and waited >= limit:
                raise TimeoutError
            if self.stopped is not None and self.stopped.is_set():
                raise VideoError("stopped")


def _run(
    stream: ffmpeg.Stream,
    size: tuple[int, int],
    patience: Patience,
    complaints: deque[str],
    **output_options,
) -> Iterator[np.ndarray]:
    """Run ffmpeg and yield the frames of (width, height) that it writes."""
    width, height = size
    command = stream.output(
        "pipe:", format="rawvideo", pix_fmt="rgb24", **output_options
    ).global_args("-nostdin", "-hide_banner", "-loglevel", "error")
    process = command.run_async(
        cmd=imageio_ffmpeg.get_ffmpeg_exe(), pipe_stdout=True, pipe_stderr=True
    )
    _lower_priority(process.pid)
    # stderr is read all the time: ffmpeg would stop when its pipe is full.
    listener = threading.Thread(target=_listen, args=(process.stderr, complaints), daemon=True)
    listener.start()
    try:
        _enlarge_pipe(process.stdout)
        while True:
            frame = np.empty((height, width, 3), np.uint8)
            num_bytes = _read(process.stdout, memoryview(frame).cast("B"), patience)
            if num_bytes < frame.nbytes:
                break
            yield frame
        return_code = process.wait(patience.timeout_seconds)
        listener.join(LAST_SECONDS)
        if return_code or num_bytes:
            reason = _reason(complaints) or f"it ended with {return_code}"
            raise VideoError(f"ffmpeg failed: {reason}", complaints)
    except (TimeoutError, subprocess.TimeoutExpired):
        raise VideoError(
            f"the decoder stopped answering for {patience.timeout_seconds:g} s", complaints
        ) from None
    finally:  # also when the caller stops in the middle
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(LAST_SECONDS)
            listener.join(LAST_SECONDS)
        process.stdout.close()
        if not listener.is_alive():
            process.stderr.close()


def _read(pipe: IO[bytes], buffer: memoryview, patience: Patience) -> int:
    """Fill a buffer from a pipe; gives how many bytes it got, fewer only at the pipe's end.

    Raises:
        TimeoutError: nothing came for so long. Time counts only while we wait here.
    """
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    num_bytes = 0
    while num_bytes < len(buffer):
        patience.wait(poll)
        got = os.readv(pipe.fileno(), [buffer[num_bytes:]])
        if not got:
            break
        num_bytes += got
    return num_bytes


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

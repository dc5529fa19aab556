"""One video: its frames as ffmpeg streams them.

ffmpeg runs in its own process, so that a decoder that crashes costs one row. Its
binary is the one that `imageio-ffmpeg` ships; set `IMAGEIO_FFMPEG_EXE` for another.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import threading
from collections import deque
from collections.abc import Iterator
from functools import cache
from typing import IO, Any, NamedTuple

import ffmpeg
import imageio_ffmpeg
import numpy as np

from videofeatures.decoding.ffmpeg import FFMPEG_LINES, file_url, reason_in, restrictions
from videofeatures.errors import UserError, VideoError

PIPE_BYTES = 1 << 20
"""Size asked for the pipe from ffmpeg: Linux's limit for a plain user. The default of
64 KiB makes ffmpeg and Python wait for each other several times a frame."""

LAST_SECONDS = 5
"""How long ffmpeg may take to end when it was killed, or has nothing more to say. One that the
kernel holds, on a disk that does not answer, say, is left to itself."""

EXTRA_NICENESS = 10
"""How much ffmpeg gives way to the network. Where both share the cores, ffmpeg takes those
that the network leaves, and the queue between them evens it out: otherwise one thread of a
convolution waits for the one whose core ffmpeg has, a tenth of the time in all (measured)."""


HWACCELS = ("cuda", "vaapi", "qsv", "videotoolbox")
"""Kinds of devices that `auto` looks for, in this order."""

HWACCEL_TIMEOUT_SECONDS = 30


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
    stderr_lines: deque[str] | None = None,
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
        hwaccel: device that ffmpeg decodes on, as its option `-hwaccel`; `none` for the CPU,
            `auto` for what `find_hwaccel` finds.
        packet_filter: bitstream filter between the file and the decoder, of `skip_filter`.
        num_threads: threads of the decoder.
        timeout_seconds: how long ffmpeg may say nothing while it is waited for; None for ever.
        local_files_only: see `restrictions`.
        stderr_lines: takes the last lines that ffmpeg says; a frame may come all the same.
        stopped: ends the wait for ffmpeg when it is set.

    Raises:
        VideoError: ffmpeg failed, gave no frame, or did not answer.
    """
    stderr_lines = deque(maxlen=FFMPEG_LINES) if stderr_lines is None else stderr_lines
    options = {"threads": num_threads, **restrictions(local_files_only)}
    if hwaccel == "auto":
        hwaccel = find_hwaccel()
    if hwaccel != "none":
        options["hwaccel"] = hwaccel
    if packet_filter is not None:
        options["bsf:V:0"] = packet_filter
    video = ffmpeg.input(file_url(path), **options)["V:0"]  # capital V leaves cover art out

    def run(stream: ffmpeg.Stream, **output_options: Any) -> Iterator[np.ndarray]:
        stream = _resize_and_crop(stream, size, crop_size, interpolation)
        frame_size = (crop_size, crop_size) if crop_size else size
        patience = ReadTimeout(timeout_seconds, stopped)
        return _run(stream, frame_size, patience, stderr_lines, **output_options)

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


class ReadTimeout(NamedTuple):
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
    patience: ReadTimeout,
    stderr_lines: deque[str],
    **output_options: Any,
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
    listener = threading.Thread(target=_listen, args=(process.stderr, stderr_lines), daemon=True)
    listener.start()
    try:
        _enlarge_pipe(process.stdout)
        while True:
            frame = np.empty((height, width, 3), np.uint8)
            num_bytes = _read(process.stdout, frame.data.cast("B"), patience)
            if num_bytes < frame.nbytes:
                break
            yield frame
        return_code = process.wait(patience.timeout_seconds)
        listener.join(LAST_SECONDS)
        if return_code or num_bytes:
            reason = reason_in(stderr_lines) or f"it ended with {return_code}"
            raise VideoError(f"ffmpeg failed: {reason}", stderr_lines)
    except (TimeoutError, subprocess.TimeoutExpired):
        raise VideoError(
            f"the decoder stopped answering for {patience.timeout_seconds:g} s", stderr_lines
        ) from None
    finally:  # also when the caller stops in the middle
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(LAST_SECONDS)
            listener.join(LAST_SECONDS)
        process.stdout.close()
        if not listener.is_alive():
            process.stderr.close()


def _read(pipe: IO[bytes], buffer: memoryview, patience: ReadTimeout) -> int:
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


def _listen(stderr: IO[bytes], lines: deque[str]) -> None:
    for line in stderr:
        lines.append(line.decode(errors="replace").rstrip())


def _enlarge_pipe(stdout: IO[bytes]) -> None:
    try:
        import fcntl

        fcntl.fcntl(stdout, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    except (ImportError, AttributeError, OSError):
        pass  # not Linux, or the user's share of pipe memory is spent: only slower


@cache
def find_hwaccel() -> str:
    """The first kind of device that ffmpeg can decode on here; `none` if there is none.

    Each kind is tried in a process of its own: with ffmpeg's own `auto`, one whose library is
    missing ends the whole process (seen: 9.0.2, a static build, without libva).
    """
    ffmpeg_exe = imageio_ffmpeg.get_ffmpeg_exe()
    nothing = ["-f", "lavfi", "-i", "nullsrc=s=64x64:d=0.04", "-f", "null", "-"]
    for kind in HWACCELS:
        command = [ffmpeg_exe, "-v", "error", "-nostdin", "-init_hw_device", kind, *nothing]
        with contextlib.suppress(subprocess.TimeoutExpired):
            result = subprocess.run(command, capture_output=True, timeout=HWACCEL_TIMEOUT_SECONDS)
            if result.returncode == 0:
                return kind
    return "none"


def ffmpeg_version() -> str:
    """Version of the ffmpeg that decodes, in its own words.

    Raises:
        UserError: there is none that runs.
    """
    try:
        return imageio_ffmpeg.get_ffmpeg_version()
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        exe = os.environ.get("IMAGEIO_FFMPEG_EXE", "ffmpeg")
        raise UserError(
            f"{exe}: is no ffmpeg that runs ({error}). Unset IMAGEIO_FFMPEG_EXE, or name another "
            "one with it"
        ) from None

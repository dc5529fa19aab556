"""ffmpeg's command line: what is asked of it, and how it runs.

Each command is a graph of ffmpeg-python, and each runs as a process of its own, so that a decoder
that crashes costs one row. The binary is the one that `imageio-ffmpeg` ships; set
`IMAGEIO_FFMPEG_EXE` for another.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

import ffmpeg
import imageio_ffmpeg
import numpy as np

from videofeatures.decoding.formats import file_url, input_options
from videofeatures.decoding.process import (
    NUM_STDERR_LINES,
    ChildProcess,
    NoAnswerError,
    ReadTimeout,
)
from videofeatures.errors import UserError, VideoError

PIPE_BYTES = 1 << 20
"""Size asked for the pipe from ffmpeg: Linux's limit for a plain user. The default of
64 KiB makes ffmpeg and Python wait for each other several times a frame."""

EXTRA_NICENESS = 10
"""How much ffmpeg gives way to the network. Where both share the cores, ffmpeg takes those
that the network leaves, and the queue between them evens it out: otherwise one thread of a
convolution waits for the one whose core ffmpeg has, a tenth of the time in all (measured)."""

EXPLAIN_TIMEOUT_SECONDS = 5
"""How long ffmpeg may take to say what is wrong with a file."""

MAX_EXPLAIN_LINES = 1000
"""Lines that are looked at then: the first ones tell the cause."""

HWACCELS = ("cuda", "vaapi", "qsv", "videotoolbox")
"""Kinds of devices that `find_hwaccel` looks for, in this order."""

HWACCEL_TIMEOUT_SECONDS = 30

PLAYLIST = (
    "a playlist, or a format that makes ffmpeg open other files. If you trust it, set "
    "`local_files_only: false`"
)


def open_file(path: str, *, local_files_only: bool, **options: Any) -> ffmpeg.Stream:
    """Return a file as a graph's input.

    Args:
        local_files_only: see `input_options`.
        options: of ffmpeg, for its input.
    """
    return ffmpeg.input(
        file_url(path), **options, **input_options(local_files_only=local_files_only)
    )


def start_ffmpeg(
    output: ffmpeg.Stream, read_timeout: ReadTimeout, stderr_lines: deque[str]
) -> ChildProcess:
    """Start ffmpeg on a graph; it says nothing but errors.

    Raises:
        OSError, RuntimeError: there is no ffmpeg that runs.
    """
    command = output.global_args("-nostdin", "-hide_banner", "-loglevel", "error").compile(
        cmd=ffmpeg_path()
    )
    return ChildProcess(
        command,
        read_timeout,
        stderr_lines,
        pipe_bytes=PIPE_BYTES,
        extra_niceness=EXTRA_NICENESS,
    )


def read_frames(
    video: ffmpeg.Stream,
    size: tuple[int, int],
    read_timeout: ReadTimeout,
    stderr_lines: deque[str],
    **output_options: Any,
) -> Iterator[np.ndarray]:
    """Run ffmpeg and yield the frames of a graph, each (height, width, 3), uint8, RGB.

    Args:
        size: (width, height) of the frames that the graph makes.

    Raises:
        VideoError: ffmpeg failed, did not answer, or was stopped.
        OSError, RuntimeError: there is no ffmpeg that runs.
    """
    width, height = size
    output = video.output("pipe:", format="rawvideo", pix_fmt="rgb24", **output_options)
    with start_ffmpeg(output, read_timeout, stderr_lines) as process:
        while True:
            frame = np.empty((height, width, 3), np.uint8)
            num_bytes = process.read_into(frame.data.cast("B"))
            if num_bytes < frame.nbytes:
                break
            yield frame
        status = process.wait()
        if status or num_bytes:
            cause = find_cause(stderr_lines) or f"it ended with {status}"
            raise VideoError(f"ffmpeg failed: {cause}", stderr_lines)


def explain_failure(
    path: str, *, local_files_only: bool, stopped: threading.Event | None = None
) -> list[str]:
    """Return the lines in which ffmpeg says why it cannot decode a file's first frame.

    Raises:
        VideoError: the wait was stopped.
        OSError, RuntimeError: there is no ffmpeg that runs.
    """
    lines: deque[str] = deque(maxlen=MAX_EXPLAIN_LINES)
    video = open_file(path, local_files_only=local_files_only)["v:0"]
    output = video.output("pipe:", format="null", vframes=1)
    read_timeout = ReadTimeout(EXPLAIN_TIMEOUT_SECONDS, stopped)
    # What it has said by the end of its time is said.
    with contextlib.suppress(NoAnswerError), start_ffmpeg(output, read_timeout, lines) as process:
        process.wait()
    return list(lines)[:NUM_STDERR_LINES]


def find_cause(stderr_lines: Iterable[str]) -> str | None:
    """Return the first line of ffmpeg's that names a cause, without the addresses of its parts."""
    for line in stderr_lines:
        text = re.sub(r"^(\[[^]]*\] ?)+", "", line).strip()
        if "not on whitelist" in text or "Not detecting m3u8/hls" in text:
            return PLAYLIST
        if text and not text.startswith(("Error opening input", "Conversion failed")):
            return text
    return None


@cache
def find_hwaccel(stopped: threading.Event | None = None) -> str:
    """Return the first kind of device that ffmpeg can decode on here; `none` if there is none.

    Each kind is tried in a process of its own: with ffmpeg's own `auto`, one whose library is
    missing ends the whole process (seen: 9.0.2, a static build, without libva).

    Raises:
        VideoError: the wait was stopped.
        OSError, RuntimeError: there is no ffmpeg that runs.
    """
    for kind in HWACCELS:
        nothing = ffmpeg.input("nullsrc=s=64x64:d=0.04", format="lavfi", init_hw_device=kind)
        output = nothing.output("pipe:", format="null")
        read_timeout = ReadTimeout(HWACCEL_TIMEOUT_SECONDS, stopped)
        lines: deque[str] = deque(maxlen=NUM_STDERR_LINES)
        with (
            contextlib.suppress(NoAnswerError),
            start_ffmpeg(output, read_timeout, lines) as process,
        ):
            if process.wait() == 0:
                return kind
    return "none"


def find_codecs() -> set[str]:
    """Return the names of the codecs that ffmpeg decodes.

    Raises:
        OSError, subprocess.CalledProcessError, RuntimeError: it does not run, or there is none.
    """
    command = [ffmpeg_path(), "-hide_banner", "-codecs"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(re.findall(r"^ D\S+ (\S+)", result.stdout, re.MULTILINE))


def ffmpeg_path() -> str:
    """Return the path of the ffmpeg that decodes.

    Raises:
        RuntimeError: there is none.
    """
    return imageio_ffmpeg.get_ffmpeg_exe()


def ffmpeg_version() -> str:
    """Return the version of the ffmpeg that decodes, in its own words.

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

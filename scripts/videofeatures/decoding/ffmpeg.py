"""ffmpeg's command line: what is asked of it, and how it runs.

Each command is a graph of ffmpeg-python, and each runs as a process of its own, so that a decoder
that crashes costs one row. The binary is the one that `imageio-ffmpeg` ships; set
`IMAGEIO_FFMPEG_EXE` for another.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
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
    DEFAULT_MEMORY_BYTES,
    NUM_STDERR_LINES,
    ChildProcess,
    MemoryLimitError,
    NoAnswerError,
    ReadTimeout,
)
from videofeatures.decoding.tally import Tally
from videofeatures.errors import VIDEO_SIGNALS, MachineError, UserError, VideoError

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

TRIAL_TIMEOUT_SECONDS = 30

ASK_TIMEOUT_SECONDS = 60
"""How long ffmpeg may take to say its version: it is 100 MB, on a disk that may be slow."""

PLAYLIST = (
    "a playlist, or a format that makes ffmpeg open other files. If you trust it, set "
    "`local_files_only: false`"
)

NO_VIDEO = "no video stream"


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
    output: ffmpeg.Stream,
    read_timeout: ReadTimeout,
    stderr_lines: deque[str],
    *,
    memory_bytes: int | None = DEFAULT_MEMORY_BYTES,
    tally: Tally | None = None,
    chained: bool = False,
    num_first: int = 1,
) -> ChildProcess:
    """Start ffmpeg on a graph; `stderr_lines` gets nothing but errors.

    Args:
        memory_bytes: see `ChildProcess`.
        tally: counts the rest of what it says.
        chained: what follows the first filters is a graph of its own: see `can_chain_graphs`.
        num_first: how many these are.

    Raises:
        UserError: there is no ffmpeg that runs.
    """
    level = "repeat+level+verbose" if tally else "error"
    command = output.global_args(
        "-nostdin", "-nostats", "-hide_banner", "-loglevel", level
    ).compile(cmd=ffmpeg_path())
    if chained:
        place = command.index("-filter_complex") + 1
        filters = command[place].split(";")
        graphs = [";".join(filters[:num_first]), ";".join(filters[num_first:])]
        if graphs[1]:
            command[place : place + 1] = [graphs[0], "-filter_complex", graphs[1]]
    return ChildProcess(
        command,
        read_timeout,
        stderr_lines,
        pipe_bytes=PIPE_BYTES,
        extra_niceness=EXTRA_NICENESS,
        memory_bytes=memory_bytes,
        listener=tally,
    )


def read_frames(
    video: ffmpeg.Stream,
    size: tuple[int, int],
    read_timeout: ReadTimeout,
    stderr_lines: deque[str],
    *,
    memory_bytes: int | None = DEFAULT_MEMORY_BYTES,
    tally: Tally | None = None,
    chained: bool = False,
    num_first: int = 1,
    **output_options: Any,
) -> Iterator[np.ndarray]:
    """Run ffmpeg and yield the frames of a graph, each (height, width, 3), uint8, RGB.

    Args:
        size: (width, height) of the frames that the graph makes.
        memory_bytes, tally, chained, num_first: see `start_ffmpeg`.

    Raises:
        VideoError: ffmpeg failed, did not answer, or was stopped.
        MemoryLimitError: it lacks memory.
        UserError: there is no ffmpeg that runs.
    """
    tally = tally or Tally()
    width, height = size
    output = video.output("pipe:", format="rawvideo", pix_fmt="rgb24", **output_options)
    with start_ffmpeg(
        output,
        read_timeout,
        stderr_lines,
        memory_bytes=memory_bytes,
        tally=tally,
        chained=chained,
        num_first=num_first,
    ) as process:
        has_begun = False
        while True:
            frame = np.empty((height, width, 3), np.uint8)
            num_bytes = process.read_into(frame.data.cast("B"))
            if num_bytes < frame.nbytes:
                break
            has_begun = True
            yield frame
        status = process.wait()
        if tally.has_no_frames and not (has_begun or num_bytes or tally.is_hopeless):
            return  # it may crash then, where a second graph waits for one (seen: 9.0.2)
        # Where an allocation fails, it says so, or something else, or crashes (seen: 9.0.2).
        taken, limit = (number >> 20 for number in (process.peak_memory_bytes, memory_bytes or 0))
        has_little = taken > limit / 2 > 0
        has_none = taken > 0.9 * limit > 0 and (status or num_bytes)
        if tally.is_hopeless or has_none or (has_little and tally.lacks_buffers):
            if memory_bytes is None:
                raise MachineError("ffmpeg failed: out of memory", stderr_lines)
            raise MemoryLimitError(memory_bytes, stderr_lines)
        if status < 0 and -status not in VIDEO_SIGNALS:
            reason = f"ffmpeg was killed (signal {-status}): out of memory, it may be"
            raise MachineError(reason, stderr_lines)
        if status or num_bytes:
            reason = f"ffmpeg failed: {find_cause(stderr_lines) or f'it ended with {status}'}"
            if has_little:
                reason += f" (it took {taken} of {limit} MB of memory: see `decoder_memory_mb`)"
            raise VideoError(reason, stderr_lines)


def explain_failure(
    path: str, *, local_files_only: bool, stopped: threading.Event | None = None
) -> list[str]:
    """Return the lines in which ffmpeg says why it cannot decode a file's first frame.

    Raises:
        VideoError: the wait was stopped.
        UserError: there is no ffmpeg that runs.
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
        if text.startswith("Stream map") and "matches no streams" in text:
            return NO_VIDEO
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
        UserError: there is no ffmpeg that runs.
    """
    for kind in HWACCELS:
        nothing = ffmpeg.input("nullsrc=s=64x64:d=0.04", format="lavfi", init_hw_device=kind)
        output = nothing.output("pipe:", format="null")
        read_timeout = ReadTimeout(TRIAL_TIMEOUT_SECONDS, stopped)
        lines: deque[str] = deque(maxlen=NUM_STDERR_LINES)
        with (
            contextlib.suppress(NoAnswerError),
            start_ffmpeg(output, read_timeout, lines, memory_bytes=None) as process,
        ):
            if process.wait() == 0:
                return kind
    return "none"


@cache
def can_chain_graphs(stopped: threading.Event | None = None) -> bool:
    """Whether this ffmpeg takes one graph's output as another's input: from version 7.1 on.

    Raises:
        VideoError: the wait was stopped.
        UserError: there is no ffmpeg that runs.
    """
    source = ffmpeg.input("nullsrc=s=16x16:d=0.04:r=25", format="lavfi")
    output = source.filter("fps", fps=25).filter("null").output("pipe:", format="null")
    read_timeout = ReadTimeout(TRIAL_TIMEOUT_SECONDS, stopped)
    lines: deque[str] = deque(maxlen=NUM_STDERR_LINES)
    try:
        with start_ffmpeg(output, read_timeout, lines, chained=True) as process:
            return process.wait() == 0
    except NoAnswerError:
        return False


@cache
def passthrough_option(stopped: threading.Event | None = None) -> dict[str, str]:
    """Return the option of an output that has each frame once, whatever its time.

    It has another name from version 5.1 on; the old one is not in all that came later.

    Raises:
        VideoError: the wait was stopped.
        UserError: there is no ffmpeg that runs.
    """
    source = ffmpeg.input("nullsrc=s=16x16:d=0.04:r=25", format="lavfi")
    output = source.output("pipe:", format="null", fps_mode="passthrough")
    read_timeout = ReadTimeout(TRIAL_TIMEOUT_SECONDS, stopped)
    lines: deque[str] = deque(maxlen=NUM_STDERR_LINES)
    with (
        contextlib.suppress(NoAnswerError),
        start_ffmpeg(output, read_timeout, lines) as process,
    ):
        if process.wait() == 0:
            return {"fps_mode": "passthrough"}
    return {"vsync": "passthrough"}


def find_codecs() -> set[str]:
    """Return the names of the codecs that ffmpeg decodes.

    Raises:
        UserError: there is no ffmpeg that runs.
    """
    return set(re.findall(r"^ D\S+ (\S+)", _ask_ffmpeg("-codecs"), re.MULTILINE))


def ffmpeg_path() -> str:
    """Return the path of the ffmpeg that decodes.

    Raises:
        UserError: there is none.
    """
    try:
        path = imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        raise UserError(str(error)) from None
    if shutil.which(path) is None:
        raise no_ffmpeg("it cannot be executed" if os.path.exists(path) else "no such file")
    return path


def ffmpeg_version() -> str:
    """Return the version of the ffmpeg that decodes, in its own words.

    Raises:
        UserError: there is none that runs.
    """
    said = _ask_ffmpeg("-version")
    match = re.match(r"ffmpeg version (\S+)", said)
    if match is None:
        raise no_ffmpeg(f"it says {said[:40]!r}")
    return match[1]


def no_ffmpeg(why: object) -> UserError:
    """Return the error to raise where the program that is meant to be ffmpeg is none that runs."""
    exe = os.environ.get("IMAGEIO_FFMPEG_EXE", "ffmpeg")
    return UserError(
        f"{exe}: is no ffmpeg that runs ({why}). Unset IMAGEIO_FFMPEG_EXE, or name another one "
        "with it"
    )


def _ask_ffmpeg(option: str) -> str:
    try:
        return subprocess.run(
            [ffmpeg_path(), option, "-hide_banner"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=True,
            timeout=ASK_TIMEOUT_SECONDS,
        ).stdout
    except OSError as error:
        raise no_ffmpeg(error.strerror or error) from None
    except subprocess.CalledProcessError as error:
        raise no_ffmpeg(f"it ended with {error.returncode}") from None
    except subprocess.TimeoutExpired:
        raise no_ffmpeg(f"no answer in {ASK_TIMEOUT_SECONDS} s") from None

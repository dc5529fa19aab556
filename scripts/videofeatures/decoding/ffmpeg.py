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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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


@dataclass(frozen=True, kw_only=True)
class FrameOutput:
    """Frames that one run of ffmpeg gives, of several.

    Attributes:
        stream: the graph that makes them.
        size: (width, height) of the frames that it makes.
        num_first: how many of its filters come before a graph of their own: see
            `can_chain_graphs`; 0 for none.
        options: of ffmpeg, for this output.
    """

    stream: ffmpeg.Stream
    size: tuple[int, int]
    num_first: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)


def start_ffmpeg(
    output: ffmpeg.Stream | Sequence[str],
    read_timeout: ReadTimeout,
    stderr_lines: deque[str],
    *,
    memory_bytes: int | None = DEFAULT_MEMORY_BYTES,
    tally: Tally | None = None,
    more_pipes: Sequence[tuple[int, int]] = (),
) -> ChildProcess:
    """Start ffmpeg; `stderr_lines` gets nothing but errors.

    Args:
        output: a graph, or what `join_outputs` made of several.
        memory_bytes, more_pipes: see `ChildProcess`.
        tally: counts the rest of what it says.

    Raises:
        UserError: there is no ffmpeg that runs.
    """
    level = "repeat+level+verbose" if tally else "error"
    words = output.get_args() if isinstance(output, ffmpeg.Stream) else output
    return ChildProcess(
        [ffmpeg_path(), "-nostdin", "-nostats", "-hide_banner", "-loglevel", level, *words],
        read_timeout,
        stderr_lines,
        pipe_bytes=PIPE_BYTES,
        extra_niceness=EXTRA_NICENESS,
        memory_bytes=memory_bytes,
        listener=tally,
        more_pipes=more_pipes,
    )


def join_outputs(outputs: Sequence[ffmpeg.Stream], nums_first: Sequence[int]) -> list[str]:
    """Return a command line that decodes once for several outputs, each with a chain of filters.

    The first filters of all chains are one graph, which takes what is decoded; what follows in a
    chain is a graph of its own. Where several graphs take what is decoded, ffmpeg comes to a halt
    now and then: 5 of 25 runs with four (9.0.2, a video of 13 frames); of 180 with one, none did.

    Args:
        outputs: of one input.
        nums_first: of each chain, how many filters come before a graph of their own; 0 for all in
            one.
    """
    head: list[str] = []
    firsts: list[str] = []
    rests: list[str] = []
    tails: list[str] = []
    for number, (output, num_first) in enumerate(zip(outputs, nums_first, strict=True)):
        words = output.get_args()
        place = words.index("-filter_complex")
        head, graph, tail = words[:place], words[place + 1], words[place + 2 :]
        if len(outputs) > 1:  # each has names of its own: [s0] is [o1s0]
            graph = re.sub(r"\[s(\d+)\]", rf"[o{number}s\1]", graph)
            tail = [re.sub(r"^\[s(\d+)\]$", rf"[o{number}s\1]", word) for word in tail]
        chain = graph.split(";")
        firsts += chain[: num_first or None]
        rests += [";".join(chain[num_first:])] if num_first and chain[num_first:] else []
        tails += tail
    if len(outputs) > 1:
        taken = [k for k, one in enumerate(firsts) if not re.match(r"\[o\d+s", one)]
        source = firsts[taken[0]].partition("]")[0] + "]"
        parts = [f"[part{k}]" for k in range(len(taken))]
        for part, k in zip(parts, taken, strict=True):
            firsts[k] = part + firsts[k].removeprefix(source)
        firsts.insert(0, f"{source}split={len(parts)}{''.join(parts)}")
    graphs = [";".join(firsts), *rests]
    return [*head, *(word for each in graphs for word in ("-filter_complex", each)), *tails]


def read_frames(
    outputs: Sequence[FrameOutput],
    read_timeout: ReadTimeout,
    stderr_lines: deque[str],
    *,
    memory_bytes: int | None = DEFAULT_MEMORY_BYTES,
    tally: Tally | None = None,
) -> Iterator[tuple[int, np.ndarray]]:
    """Run ffmpeg and yield the frames of graphs as they come, each with the number of its output:
    (height, width, 3), uint8, RGB.

    Args:
        outputs: all of them of one input, which is decoded once.
        memory_bytes, tally: see `start_ffmpeg`.

    Raises:
        VideoError: ffmpeg failed, did not answer, or was stopped.
        MemoryLimitError: it lacks memory.
        UserError: there is no ffmpeg that runs.
    """
    tally = tally or Tally()
    pipes = [os.pipe() for _ in outputs[1:]]
    addresses = ["pipe:", *(f"pipe:{theirs}" for _, theirs in pipes)]
    streams = [
        output.stream.output(address, format="rawvideo", pix_fmt="rgb24", **output.options)
        for output, address in zip(outputs, addresses, strict=True)
    ]
    with start_ffmpeg(
        join_outputs(streams, [output.num_first for output in outputs]),
        read_timeout,
        stderr_lines,
        memory_bytes=memory_bytes,
        tally=tally,
        more_pipes=pipes,
    ) as process:
        has_begun = False
        partial = [_PartialFrame(output.size) for output in outputs]
        while ready := process.wait_for_outputs():
            for number in ready:
                frame = partial[number]
                frame.num_bytes += process.read_part(number, frame.rest)
                if not frame.rest:
                    has_begun = True
                    yield number, frame.take()
        num_bytes = sum(frame.num_bytes for frame in partial)
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


class _PartialFrame:
    """A frame that is being read.

    Attributes:
        num_bytes: that are there.
    """

    def __init__(self, size: tuple[int, int]):
        width, height = size
        self._shape = height, width, 3
        self._start()

    def _start(self) -> None:
        self._frame = np.empty(self._shape, np.uint8)
        self._bytes = self._frame.data.cast("B")
        self.num_bytes = 0

    @property
    def rest(self) -> memoryview:
        """What is to be filled; nothing where the frame is complete."""
        return self._bytes[self.num_bytes :]

    def take(self) -> np.ndarray:
        """Return the frame, and begin the next one."""
        frame = self._frame
        self._start()
        return frame


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
        with start_ffmpeg(join_outputs([output], [1]), read_timeout, lines) as process:
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

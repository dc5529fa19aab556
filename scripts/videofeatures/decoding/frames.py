"""A video's frames: the filters that make them what a network wants to see."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import ffmpeg
import numpy as np

from videofeatures.decoding.decoder import VideoMetadata
from videofeatures.decoding.ffmpeg import (
    can_chain_graphs,
    find_hwaccel,
    open_file,
    read_frames,
)
from videofeatures.decoding.process import DEFAULT_MEMORY_BYTES, NUM_STDERR_LINES, ReadTimeout
from videofeatures.decoding.tally import Tally
from videofeatures.decoding.view import View
from videofeatures.errors import VideoError

MAX_THREADS = 8
"""Of one decoder. Each holds a frame of its own: on 16, 4K of 10 bits takes 970 MB (measured)."""


def resized_size(metadata: VideoMetadata, view: View) -> tuple[int, int]:
    """Return (width, height) with a short side of `resize_size` and a truncated long side.

    Truncated, not rounded, as in the original program: 1920×1080 is 398×224.
    """
    width = metadata.width * (metadata.sample_aspect_ratio if view.square_pixels else Fraction(1))
    height = metadata.height
    if height >= width:
        return view.resize_size, int(height * view.resize_size / width)
    return int(width * view.resize_size / height), view.resize_size


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
    local_files_only: bool = True,
    read_timeout: ReadTimeout | None = None,
    stderr_lines: deque[str] | None = None,
    memory_bytes: int | None = DEFAULT_MEMORY_BYTES,
    tally: Tally | None = None,
) -> Iterator[np.ndarray]:
    """Stream a video's frames at a constant rate, each (height, width, 3), uint8, RGB.

    Memory is constant, whatever the length of the video. ffmpeg's `fps` filter rounds to
    the nearest: frame k is the last one shown before second (k + 0.5) / frame_rate. A
    video too short for a single frame, such as a still image, gives its first one.

    That filter repeats a picture that stands still, for all of its time at one go. They are
    references, and each is scaled when its turn comes, since the scaler is in a graph of its own:
    with one graph, as before version 7.1, 30 minutes took 0.6 GB for 398×224 and a frame a second,
    and 3.1 GB for 150×112 and 24; with two they take 42 and 74 MB (measured, 9.0.2).

    Args:
        size: (width, height) to resize to.
        crop_size: side of the centre crop, in pixels; 0 for none.
        interpolation: of ffmpeg's scaler. Always given to it: its default changed from
            bilinear to bicubic with version 5.
        hwaccel: device that ffmpeg decodes on, as its option `-hwaccel`; `none` for the CPU,
            `auto` for what `find_hwaccel` finds.
        packet_filter: bitstream filter between the file and the decoder, of `skip_filter`.
        num_threads: threads of the decoder; no more than `MAX_THREADS` are used.
        local_files_only: see `input_options`.
        read_timeout: how long ffmpeg may say nothing while it is waited for; None for ever.
        stderr_lines: takes the last lines that ffmpeg says; a frame may come all the same.
        memory_bytes: that ffmpeg may take; not limited with `hwaccel`, whose drivers reserve more
            than they use.
        tally: counts what ffmpeg says.

    Raises:
        VideoError: ffmpeg failed, gave no frame, did not answer, or was stopped.
        MemoryLimitError: it lacks memory.
        UserError: there is no ffmpeg that runs.
    """
    lines = deque[str](maxlen=NUM_STDERR_LINES) if stderr_lines is None else stderr_lines
    timeout = read_timeout or ReadTimeout()
    options: dict[str, Any] = {"threads": min(num_threads, MAX_THREADS)}
    if hwaccel == "auto":
        hwaccel = find_hwaccel(timeout.stopped)
    if hwaccel != "none":
        options["hwaccel"] = hwaccel
        memory_bytes = None
    if packet_filter is not None:
        options["bsf:V:0"] = packet_filter
    # A capital V leaves cover art out.
    video = open_file(path, local_files_only=local_files_only, **options)["V:0"]

    def read(stream: ffmpeg.Stream, **output_options: Any) -> Iterator[np.ndarray]:
        stream = _resize_and_crop(stream, size, crop_size, interpolation)
        frame_size = (crop_size, crop_size) if crop_size else size
        return read_frames(
            stream,
            frame_size,
            timeout,
            lines,
            memory_bytes=memory_bytes,
            tally=tally,
            chained=can_chain_graphs(timeout.stopped),
            **output_options,
        )

    frame = None
    for frame in read(video.filter("fps", fps=frame_rate)):
        yield frame
    if frame is None:
        for frame in read(video, vframes=1):
            yield frame
    if frame is None:
        raise VideoError("ffmpeg decoded no frame", lines)


def _resize_and_crop(
    stream: ffmpeg.Stream, size: tuple[int, int], crop_size: int, interpolation: str
) -> ffmpeg.Stream:
    width, height = size
    stream = stream.filter("scale", width, height, flags=interpolation)
    if crop_size:
        x, y = int((width - crop_size) / 2), int((height - crop_size) / 2)
        stream = stream.filter("crop", crop_size, crop_size, x, y)
    return stream

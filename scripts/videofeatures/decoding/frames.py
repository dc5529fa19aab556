"""A video's frames: the filters that make them what a network wants to see."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import ffmpeg
import numpy as np

from videofeatures.decoding.decoder import VideoMetadata
from videofeatures.decoding.ffmpeg import (
    can_chain_graphs,
    find_hwaccel,
    open_file,
    passthrough_option,
    read_frames,
)
from videofeatures.decoding.parts import Cut, usual_seconds
from videofeatures.decoding.process import DEFAULT_MEMORY_BYTES, NUM_STDERR_LINES, ReadTimeout
from videofeatures.decoding.resizing import Resizing
from videofeatures.decoding.tally import Tally
from videofeatures.decoding.view import Native, View
from videofeatures.errors import VideoError

MAX_THREADS = 8
"""Of one decoder. Each holds a frame of its own: on 16, 4K of 10 bits takes 970 MB (measured)."""


def resized_size(metadata: VideoMetadata, view: View) -> tuple[int, int]:
    """Return (width, height) with a short side of `resize_size` and a truncated long side.

    Truncated, not rounded, as in the original program: 1920×1080 is 398×224. Where the
    view squashes frames, they are as high as `resize_size`, and as wide as it says.
    """
    if view.resize_mode == "squash":
        return view.resize_width or view.resize_size, view.resize_size
    width = metadata.width * (metadata.sample_aspect_ratio if view.square_pixels else Fraction(1))
    height = metadata.height
    if height >= width:
        return view.resize_size, int(height * view.resize_size / width)
    return int(width * view.resize_size / height), view.resize_size


def resizing_of(metadata: VideoMetadata, view: View) -> Resizing:
    """Return how a view wants the frames of a video to be resized and cropped."""
    return Resizing(
        size=resized_size(metadata, view),
        crop_size=view.crop_size,
        crop_rounding=view.crop_rounding,
        interpolation=view.interpolation,
        antialias=view.antialias,
        whole_size=(metadata.width, metadata.height) if view.resizer == "pillow" else None,
    )


def iter_frames(
    path: str,
    resizing: Resizing,
    *,
    frame_rate: float | Native,
    frame_step: int = 1,
    select: str | None = None,
    keyframes_only: bool = False,
    hwaccel: str = "none",
    packet_filter: str | None = None,
    cut: Cut | None = None,
    average_fps: float | None = None,
    num_threads: int = 1,
    local_files_only: bool = True,
    read_timeout: ReadTimeout | None = None,
    stderr_lines: deque[str] | None = None,
    memory_bytes: int | None = DEFAULT_MEMORY_BYTES,
    tally: Tally | None = None,
) -> Iterator[np.ndarray]:
    """Stream a video's frames, each (height, width, 3), uint8, RGB.

    Memory is constant, whatever the length of the video.

    With `native`, each frame of the video comes once, and the tally has their times, also of those
    that `frame_step` and `select` leave out. At a constant rate, ffmpeg's `fps` filter rounds to
    the nearest: frame k is the last one shown before second (k + 0.5) / frame_rate. A
    video too short for a single frame, such as a still image, gives its first one.

    That filter repeats a picture that stands still, for all of its time at one go. They are
    references, and each is scaled when its turn comes, since the scaler is in a graph of its own:
    with one graph, as before version 7.1, 30 minutes took 0.6 GB for 398×224 and a frame a second,
    and 3.1 GB for 150×112 and 24; with two they take 42 and 74 MB (measured, 9.0.2).

    Args:
        resizing: what becomes of each frame.
        frame_rate: frames a second; `native` for those of the video itself.
        frame_step: of these, every so many-th comes.
        select: of the video's own, those come for which this expression of ffmpeg's filter `select`
            is true.
        keyframes_only: the video has no frames but its key frames, with `native`.
        hwaccel: device that ffmpeg decodes on, as its option `-hwaccel`; `none` for the CPU,
            `auto` for what `find_hwaccel` finds.
        packet_filter: bitstream filter between the file and the decoder, of `skip_filter`.
        cut: the part that is wanted; None for the whole. It excludes a packet filter. A part that
            has no frame, as one behind the video's end, yields none.
        average_fps: of the video, for a part; None if it is not known.
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
    if keyframes_only:
        options["skip_frame"] = "nokey"
    can_chain = can_chain_graphs(timeout.stopped)
    if cut is not None:
        options |= cut.input_options(can_filter=can_chain)
    # A capital V leaves cover art out.
    video = open_file(path, local_files_only=local_files_only, **options)["V:0"]

    def read(stream: ffmpeg.Stream, **run_options: Any) -> Iterator[np.ndarray]:
        frames = read_frames(
            resizing.filtered(stream),
            resizing.sent_size,
            timeout,
            lines,
            memory_bytes=memory_bytes,
            tally=tally,
            **run_options,
        )
        return map(resizing.finish, frames)

    if frame_rate == "native":
        streams = _own_frames(
            video, cut, lambda stream: _timed(stream, select, frame_step, keyframes_only)
        )
        run_options: dict[str, Any] = dict(passthrough_option(timeout.stopped))
    else:
        streams = _frames_at_rate(video, cut, frame_rate, frame_step, average_fps)
        run_options = {"chained": can_chain}
    frame = None
    for stream, more_options in streams:
        for frame in read(stream, **run_options, **more_options):
            yield frame
        if frame is not None or (keyframes_only and cut is not None):
            return
    if cut is None:
        what = "key frame: see `keyframes_only`" if keyframes_only else "frame"
        raise VideoError(f"ffmpeg decoded no {what}", lines)


Attempt = tuple[ffmpeg.Stream, dict[str, Any]]
"""A graph that may give frames, and options for `read_frames`. The next one is for where it gives
none."""


def _frames_at_rate(
    video: ffmpeg.Stream,
    cut: Cut | None,
    frame_rate: float,
    frame_step: int,
    average_fps: float | None,
) -> Iterator[Attempt]:
    """Yield graphs that give frames at a constant rate; of a video that is too short, its first.

    Of a part, they give frames that begin in it; where that gives none, the first of them; where
    there is none, the one that is shown at its start; and where it is before the first frame of
    all, that one, which stands from the start of the video.
    """

    def at_rate(stream: ffmpeg.Stream) -> ffmpeg.Stream:
        stream = stream.filter("fps", fps=frame_rate)
        return stream.filter("framestep", frame_step) if frame_step > 1 else stream

    if cut is None:
        yield at_rate(video), {}
        yield video, {"vframes": 1}
        return
    num_filters = cut.num_filters()

    def limit(more_seconds: Fraction = Fraction(0)) -> dict[str, int]:
        number = cut.max_frames(frame_rate, more_seconds)
        most = {} if number is None else {"vframes": -(-number // frame_step)}
        return most | {"num_first": num_filters + 1}

    inside = cut.inside(video)
    yield at_rate(inside), limit(usual_seconds(average_fps))
    yield inside, {"num_first": num_filters, "vframes": 1}
    yield cut.shown_at_start(video, frame_rate), limit()
    yield at_rate(cut.from_start(video)), limit()


def _own_frames(
    video: ffmpeg.Stream, cut: Cut | None, timed: Callable[[ffmpeg.Stream], ffmpeg.Stream]
) -> Iterator[Attempt]:
    """Yield graphs that give a video's own frames; of a part without one, as at a constant rate."""
    if cut is None:
        yield timed(video), {}
        return
    yield timed(cut.inside(video)), {}
    yield timed(cut.shown_at_start(video, 1)), {"vframes": 1}
    yield timed(cut.from_start(video).filter("fps", fps=1)), {"vframes": 1}


def _timed(
    video: ffmpeg.Stream, select: str | None, frame_step: int, keyframes_only: bool
) -> ffmpeg.Stream:
    if keyframes_only:  # of a decoder, too, that does not know `-skip_frame`
        video = video.filter("select", "key")
    stream = video.filter("showinfo", checksum=0)
    if select is not None:
        stream = stream.filter("select", select)
    return stream.filter("framestep", frame_step) if frame_step > 1 else stream

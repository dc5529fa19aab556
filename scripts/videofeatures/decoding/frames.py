"""A video's frames: the filters that make them what a network wants to see."""

from __future__ import annotations

import itertools
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from typing import Any

import ffmpeg
import numpy as np

from videofeatures.decoding.decoder import VideoMetadata
from videofeatures.decoding.ffmpeg import (
    FrameOutput,
    can_chain_graphs,
    open_file,
    passthrough_option,
    read_frames,
)
from videofeatures.decoding.hwaccel import Device
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


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Which frames of a video come, and what becomes of each.

    Attributes:
        resizing: what becomes of each.
        frame_rate: frames a second; `native` for those of the video itself.
        frame_step: of these, every so many-th comes.
        select: of the video's own, those come for which this expression of ffmpeg's filter `select`
            is true.
        keyframes_only: of the video's own, no others come than its key frames.
    """

    resizing: Resizing
    frame_rate: float | Native
    frame_step: int = 1
    select: str | None = None
    keyframes_only: bool = False


def group_sent(samplings: Sequence[Sampling]) -> dict[Sampling, list[int]]:
    """Return what is to be sent for some samplings, and for which of them, by their places: what
    is done for several of them is done once."""
    places_of: dict[Sampling, list[int]] = {}
    for place, sampling in enumerate(samplings):
        sent = replace(sampling, resizing=sampling.resizing.sent)
        places_of.setdefault(sent, []).append(place)
    return places_of


def iter_frames(
    path: str,
    samplings: Sequence[Sampling],
    *,
    device: Device | None = None,
    packet_filter: str | None = None,
    cut: Cut | None = None,
    average_fps: float | None = None,
    num_threads: int = 1,
    local_files_only: bool = True,
    read_timeout: ReadTimeout | None = None,
    stderr_lines: deque[str] | None = None,
    memory_bytes: int | None = DEFAULT_MEMORY_BYTES,
    tally: Tally | None = None,
) -> Iterator[tuple[int, np.ndarray]]:
    """Stream frames of a video that is decoded once, each with the number of its sampling:
    (height, width, 3), uint8, RGB.

    Memory is constant, whatever the length of the video. Those of each sampling come in their
    order, between those of the others.

    With `native`, each frame of the video comes once, and the tally has their times, also of those
    that `frame_step` and `select` leave out. At a constant rate, ffmpeg's `fps` filter rounds to
    the nearest: frame k is the last one shown before second (k + 0.5) / frame_rate. A
    video too short for a single frame, such as a still image, gives its first one.

    That filter repeats a picture that stands still, for all of its time at one go. They are
    references, and each is scaled when its turn comes, since the scaler is in a graph of its own:
    with one graph, as before version 7.1, 30 minutes took 0.6 GB for 398×224 and a frame a second,
    and 3.1 GB for 150×112 and 24; with two they take 42 and 74 MB (measured, 9.0.2).

    Args:
        samplings: key frames alone, for which the decoder leaves out all others, stand by
            themselves.
        device: that ffmpeg decodes on; None for the CPU.
        packet_filter: bitstream filter between the file and the decoder, of `skipping`.
        cut: the part that is wanted; None for the whole. It excludes a packet filter. A part that
            has no frame, as one behind the video's end, yields none.
        average_fps: of the video, for a part; None if it is not known.
        num_threads: threads of the decoder; no more than `MAX_THREADS` are used.
        local_files_only: see `input_options`.
        read_timeout: how long ffmpeg may say nothing while it is waited for; None for ever.
        stderr_lines: takes the last lines that ffmpeg says; a frame may come all the same.
        memory_bytes: that ffmpeg may take; not limited with a device, whose drivers reserve more
            than they use.
        tally: counts what ffmpeg says.

    Raises:
        VideoError: ffmpeg failed, gave no frame, did not answer, or was stopped.
        MemoryLimitError: it lacks memory.
        UserError: there is no ffmpeg that runs.
    """
    lines = deque[str](maxlen=NUM_STDERR_LINES) if stderr_lines is None else stderr_lines
    timeout = read_timeout or ReadTimeout()
    keyframes_only = any(sampling.keyframes_only for sampling in samplings)
    options: dict[str, Any] = {"threads": min(num_threads, MAX_THREADS)}
    if device is not None:
        options |= device.input_options()
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
    passthrough: dict[str, Any] = {}
    if any(sampling.frame_rate == "native" for sampling in samplings):
        passthrough = dict(passthrough_option(timeout.stopped))

    places_of = group_sent(samplings)
    native = [sampling for sampling in places_of if sampling.frame_rate == "native"]

    def attempts_of(sampling: Sampling, *, tells_times: bool) -> Iterator[FrameOutput]:
        if sampling.frame_rate == "native":
            attempts = _own_frames(video, cut, lambda one: _sampled(one, sampling, tells_times))
        else:
            attempts = _frames_at_rate(
                video, cut, sampling.frame_rate, sampling.frame_step, average_fps
            )
        for stream, num_first, more in attempts:
            if device is not None:  # frames have been chosen: no other has to leave the device
                stream = device.fetched(stream)
            yield FrameOutput(
                stream=sampling.resizing.filtered(stream),
                size=sampling.resizing.sent_size,
                num_first=num_first if can_chain else 0,
                options=more | (passthrough if sampling.frame_rate == "native" else {}),
            )

    have_frames: set[Sampling] = set()

    def read(outputs: Mapping[Sampling, FrameOutput]) -> Iterator[tuple[int, np.ndarray]]:
        order = list(outputs)
        for number, frame in read_frames(
            list(outputs.values()), timeout, lines, memory_bytes=memory_bytes, tally=tally
        ):
            have_frames.add(order[number])
            for place in places_of[order[number]]:
                yield place, samplings[place].resizing.finish(frame)

    # All samplings of the video's own frames see the same ones: it is told once when these are
    # shown.
    yield from read(
        {one: next(attempts_of(one, tells_times=one in native[:1])) for one in places_of}
    )
    for sampling in places_of:
        if sampling in have_frames or (keyframes_only and cut is not None):
            continue
        tells_times = have_frames.isdisjoint(native)
        later = itertools.islice(attempts_of(sampling, tells_times=tells_times), 1, None)
        for output in later:
            yield from read({sampling: output})
            if sampling in have_frames:
                break
        if sampling not in have_frames and cut is None:
            what = "key frame: see `keyframes_only`" if keyframes_only else "frame"
            raise VideoError(f"ffmpeg decoded no {what}", lines)


@cache
def filters_at_rate(sampling: Sampling) -> tuple[tuple[str, str], ...]:
    """Return the filters of a whole video at a constant rate, in their order, each by its name and
    its arguments, as ffmpeg's command line has them.

    Args:
        sampling: of `group_sent`.
    """
    assert sampling.frame_rate != "native"
    video = ffmpeg.input("")["V:0"]
    attempts = _frames_at_rate(video, None, sampling.frame_rate, sampling.frame_step, None)
    stream, *_ = next(attempts)
    words = sampling.resizing.filtered(stream).output("pipe:").get_args()
    graph = words[words.index("-filter_complex") + 1]
    chain = [re.sub(r"\[[^]]*\]", "", text).partition("=") for text in graph.split(";")]
    return tuple((name, arguments) for name, _, arguments in chain)


Attempt = tuple[ffmpeg.Stream, int, dict[str, Any]]
"""A graph that may give frames, how many of its filters come before a graph of their own, and
options of its output. The next one is for where it gives none."""


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
        yield at_rate(video), 1, {}
        yield video, 0, {"vframes": 1}
        return
    num_filters = cut.num_filters()

    def limit(more_seconds: Fraction = Fraction(0)) -> dict[str, int]:
        number = cut.max_frames(frame_rate, more_seconds)
        return {} if number is None else {"vframes": -(-number // frame_step)}

    inside = cut.inside(video)
    yield at_rate(inside), num_filters + 1, limit(usual_seconds(average_fps))
    yield inside, num_filters, {"vframes": 1}
    yield cut.shown_at_start(video, frame_rate), num_filters + 1, limit()
    yield at_rate(cut.from_start(video)), num_filters + 1, limit()


def _own_frames(
    video: ffmpeg.Stream, cut: Cut | None, sampled: Callable[[ffmpeg.Stream], ffmpeg.Stream]
) -> Iterator[Attempt]:
    """Yield graphs that give a video's own frames; of a part without one, as at a constant rate."""
    if cut is None:
        yield sampled(video), 0, {}
        return
    yield sampled(cut.inside(video)), 0, {}
    yield sampled(cut.shown_at_start(video, 1)), 0, {"vframes": 1}
    yield sampled(cut.from_start(video).filter("fps", fps=1)), 0, {"vframes": 1}


def _sampled(video: ffmpeg.Stream, sampling: Sampling, tells_times: bool) -> ffmpeg.Stream:
    """Return those of a video's own frames that are wanted; ffmpeg says when all are shown."""
    stream = video
    if sampling.keyframes_only:  # of a decoder, too, that does not know `-skip_frame`
        stream = stream.filter("select", "key")
    if tells_times:
        stream = stream.filter("showinfo", checksum=0)
    if sampling.select is not None:
        stream = stream.filter("select", sampling.select)
    step = sampling.frame_step
    return stream.filter("framestep", step) if step > 1 else stream

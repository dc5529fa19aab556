"""A short video, opened once and read once: from its header to the frames that some views want.

libav's libraries do here what the ffmpeg program does elsewhere, with the same filters: see
`short_videos`. It runs in a worker process, which a hostile file may crash or hang. In doubt, it
says why it does not decode a video, or has not decoded it to the end.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from itertools import pairwise, zip_longest
from typing import cast

import av
import numpy as np

from videofeatures.decoding.bounds import PacketFacts
from videofeatures.decoding.packets import look_through
from videofeatures.decoding.probe import (
    first_video_stream,
    has_decoder,
    ignore_packet,
    open_container,
)
from videofeatures.decoding.short_videos import LIBAV_VERSION, Outcome
from videofeatures.decoding.skipping import Unused
from videofeatures.decoding.truncation import explain_end

MAX_STEP_SECONDS = 10.0
"""From one picture to the next: `fps` repeats it for all of that time, in memory."""

MIN_DURATION_TICKS = 2
"""Of a packet. One of a single tick may be a guess of libavformat's, and the ffmpeg program does
not always believe it (fftools/ffmpeg_dec.c, `video_duration_estimate`)."""

CHANGING = ("new_extradata", "param_change", "lcevc")
"""Side data of packets that tell a decoder something new, or have an enhancement of the picture,
which this libav does not know."""

Send = Callable[[int, memoryview], None]
"""Takes the number of a view, and a frame of it: (height, width, 3), uint8, RGB, contiguous."""


class _LeftToFfmpegError(Exception):
    """A video is not what is decoded here."""


def decode_at_once(
    path: str,
    send: Send,
    *,
    chains: Sequence[Sequence[tuple[str, str]]],
    frame_rates: Sequence[float],
    num_threads: int = 1,
    local_files_only: bool = True,
    on_packet: Callable[[], None] = ignore_packet,
) -> Outcome:
    """Read a video, and decode it if that is simple.

    Args:
        send: takes the frames; those of one view in their order.
        chains: filters of each view, by their names and arguments.
        frame_rates: for which packets are skipped; none where nothing is to be skipped.
        num_threads: to decode with.
        local_files_only: see `input_options`.
        on_packet: is called for each packet that is read or decoded.

    Raises:
        av.FFmpegError, OSError: the file cannot be read.
    """
    av.logging.set_skip_repeated(False)  # what was said of another file
    av.logging.set_level(av.logging.WARNING)
    with (
        av.logging.Capture(local=False) as complaints,
        open_container(path, local_files_only=local_files_only) as container,
    ):
        facts, num_packets, num_frames = None, 0, 0
        try:
            if av.ffmpeg_version_info != LIBAV_VERSION:
                raise _LeftToFfmpegError(f"libav's version is {av.ffmpeg_version_info}")
            stream = first_video_stream(container)
            if stream is None or not has_decoder(stream):
                raise _LeftToFfmpegError("no video stream")
            packets: list[av.Packet] = []
            file_bytes = os.path.getsize(path)
            seen = look_through(
                container,
                stream,
                path,
                file_bytes=file_bytes,
                frame_rates=frame_rates,
                on_packet=on_packet,
                on_picture=packets.append,
            )
            facts, num_packets = seen.facts, len(packets)
            _check_packets(packets, facts, float(stream.time_base or 0))
            for frame in _decode(stream, packets, seen.unused, num_threads, on_packet):
                _check_complaints(complaints)
                if not num_frames:
                    shape, views = _shape_of(frame), _filtered(container, stream, frame, chains)
                if frame.is_corrupt or frame.rotation or _shape_of(frame) != shape:
                    raise _LeftToFfmpegError("a picture is not like the others")
                num_frames += 1
                for number, view in enumerate(views):
                    for pixels in view.add(frame):
                        send(number, pixels)
            _check_complaints(complaints)
            if not num_frames:
                raise _LeftToFfmpegError("no picture")
            for number, view in enumerate(views):
                for pixels in view.end():
                    send(number, pixels)
                if not view.num_frames:
                    raise _LeftToFfmpegError("too short for a frame")
            _check_complaints(complaints)
        except _LeftToFfmpegError as error:
            return Outcome(str(error), facts)
        except av.FFmpegError as error:
            return Outcome(str(error), facts)
    return Outcome(None, facts, num_packets)


def _check_complaints(complaints: Sequence[tuple[int, str, str]]) -> None:
    if complaints:
        _, speaker, text = complaints[0]
        raise _LeftToFfmpegError(f"[{speaker}] {text.strip()}")


def _check_packets(packets: Sequence[av.Packet], facts: PacketFacts, time_base: float) -> None:
    """Check that times are simple, and all that is read is decoded and shown."""
    if facts.is_encrypted or facts.num_discarded or len(packets) != facts.num_packets:
        raise _LeftToFfmpegError("encrypted, or with an edit list")
    if explain_end(facts, math.inf):
        raise _LeftToFfmpegError("cut off")
    for packet in packets:
        if packet.pts is None or packet.is_corrupt:
            raise _LeftToFfmpegError("a packet without a time, or a damaged one")
        if (packet.duration or 0) < MIN_DURATION_TICKS:
            raise _LeftToFfmpegError("a packet without a duration")
        if any(data.data_type in CHANGING for data in packet.iter_sidedata()):
            raise _LeftToFfmpegError("something changes on the way")
    shown = sorted(packet.pts for packet in packets if packet.pts is not None)
    steps = [after - before for before, after in pairwise(shown)]
    if 0 in steps or facts.longest_seconds > MAX_STEP_SECONDS:
        raise _LeftToFfmpegError("times that stand still, or jump")
    if max(steps, default=0) * time_base > MAX_STEP_SECONDS:
        raise _LeftToFfmpegError("times that jump")
    stored = [packet.dts for packet in packets if packet.dts is not None]
    if any(after <= before for before, after in pairwise(stored)):
        raise _LeftToFfmpegError("times that go back")


def _decode(
    stream: av.VideoStream,
    packets: Sequence[av.Packet],
    unused: Unused | None,
    num_threads: int,
    on_packet: Callable[[], None],
) -> Iterator[av.VideoFrame]:
    """Yield the pictures of packets that have a use, with the times that they have in the file.

    Raises:
        _LeftToFfmpegError: they are not one of each packet, in the order of their times.
    """
    context = stream.codec_context
    context.thread_count = num_threads
    context.thread_type = "AUTO"
    flags = [] if unused is None else unused.of_all.tolist()  # of as many as are looked into
    used = [packet for packet, is_unused in zip_longest(packets, flags) if not is_unused]
    expected = iter(sorted(packet.pts for packet in used if packet.pts is not None))
    for packet in [*used, None]:
        on_packet()
        for frame in context.decode(packet):
            if frame.pts != next(expected, None):
                raise _LeftToFfmpegError("not a picture of each packet, or not in order")
            yield frame
    if next(expected, None) is not None:
        raise _LeftToFfmpegError("not a picture of each packet")


def _shape_of(frame: av.VideoFrame) -> tuple[object, ...]:
    """Return what ffmpeg makes its filters anew for, where it changes."""
    format_name = frame.format.name
    return frame.width, frame.height, format_name, frame.colorspace, frame.color_range


def _filtered(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    frame: av.VideoFrame,
    chains: Sequence[Sequence[tuple[str, str]]],
) -> list[_FilteredView]:
    """Return the views of pictures like the first one."""
    time_base = stream.time_base
    assert time_base is not None
    # As the ffmpeg program counts them (fftools/ffmpeg_demux.c, `ts_offset`): from the start of the
    # file, in whole ticks of the stream's clock, halves away from zero.
    ticks = Fraction(-(container.start_time or 0), av.time_base) / time_base
    offset = int(abs(ticks) + Fraction(1, 2)) * (1 if ticks > 0 else -1)
    aspect = stream.sample_aspect_ratio or Fraction(0)
    source = ":".join(
        f"{key}={value}"
        for key, value in {
            "video_size": f"{frame.width}x{frame.height}",
            "pix_fmt": frame.format.name,
            "time_base": f"{time_base.numerator}/{time_base.denominator}",
            "pixel_aspect": f"{aspect.numerator}/{aspect.denominator}",
            "colorspace": int(frame.colorspace),
            "range": int(frame.color_range),
        }.items()
    )
    return [_FilteredView(source, filters, offset) for filters in chains]


class _FilteredView:
    """Makes a view's frames of pictures, by libav's filters.

    Attributes:
        num_frames: that have come.
    """

    def __init__(self, source: str, filters: Sequence[tuple[str, str]], offset: int):
        """
        Args:
            source: what pictures are like, as arguments of the filter `buffer`.
            offset: in ticks, from a picture's time in the file to that which filters see.
        """
        self.num_frames = 0
        self._offset = offset
        # Of the frames of `fps`, whose clock has a tick for each.
        self._step = int(dict(filters).get("framestep", 1))
        self._graph = av.filter.Graph()
        self._graph.threads = 1
        self._source = last = self._graph.add("buffer", source)
        for name, arguments in [*filters, ("format", "pix_fmts=rgb24"), ("buffersink", "")]:
            added = self._graph.add(name, arguments)
            last.link_to(added)
            last = added
        self._sink = last
        self._graph.configure()

    def add(self, frame: av.VideoFrame) -> Iterator[memoryview]:
        """Take a picture; yield the frames that come of it."""
        assert frame.pts is not None
        before = frame.pts
        frame.pts = before + self._offset
        self._source.push(frame)
        frame.pts = before  # the next view sees it, too
        yield from self._pull()

    def end(self) -> Iterator[memoryview]:
        """Yield the last frames."""
        self._source.push(None)
        yield from self._pull()

    def _pull(self) -> Iterator[memoryview]:
        while True:
            try:
                frame = cast(av.VideoFrame, self._sink.pull())
            except (av.BlockingIOError, av.EOFError):
                return
            # Elsewhere, the ffmpeg program fills up or leaves out (fftools/ffmpeg_enc.c).
            if frame.pts != self.num_frames * self._step:
                raise _LeftToFfmpegError("frames that start late, or have gaps")
            self.num_frames += 1
            (plane,) = frame.planes  # packed
            data: np.ndarray = np.frombuffer(memoryview(plane), np.uint8)
            rows = data.reshape(-1, plane.line_size)[: frame.height, : 3 * frame.width]
            yield np.ascontiguousarray(rows).data.cast("B")

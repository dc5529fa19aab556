"""What a file's packets say: how many there are, how long their pictures last, where all of it
ends, whether they are encrypted, and which of them need not be decoded.

One pass over the file, without decoding, for all that want to know. It runs in a worker process:
see `libav`.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise
from os import path as paths
from statistics import median
from typing import NamedTuple

import av
import numpy as np

from videofeatures.decoding import skipping
from videofeatures.decoding.bitstreams import Look, look_of
from videofeatures.decoding.bounds import PacketFacts
from videofeatures.decoding.duration import PROMISING, find_duration, start_seconds
from videofeatures.decoding.probe import (
    first_video_stream,
    has_decoder,
    ignore_packet,
    iter_packets,
    open_container,
)
from videofeatures.errors import VideoError

TIMES_MAY_JUMP = 0x0200
"""AVFMT_TS_DISCONT of libavformat/avformat.h."""

MAX_JUMP_SECONDS = 10
"""Of formats whose times may jump, ffmpeg takes longer steps out, and those back: its
`-dts_delta_threshold`."""

MAX_REREADS = 16
"""How often an edit list may have a file's bytes read before there is no telling where it ends: a
short one may ask for years."""


def ignore_picture(packet: av.Packet) -> None:
    """Do nothing."""
    del packet


def look_at_packets(
    path: str,
    *,
    frame_rates: Sequence[float] = (),
    end_seconds: float | None = None,
    local_files_only: bool = True,
    on_packet: Callable[[], None] = ignore_packet,
) -> PacketFacts:
    """Read all packets of a video.

    Args:
        frame_rates: at which frames are taken: what none of them has a use for may be skipped; none
            where nothing is to be skipped.
        end_seconds: of the part that is decoded; None for the end of the video.
        local_files_only: see `input_options`.
        on_packet: is called for each packet that is read.

    Raises:
        VideoError: there is no video stream.
        av.FFmpegError, OSError: the file cannot be read.
    """
    with open_container(path, local_files_only=local_files_only) as container:
        stream = first_video_stream(container)
        if stream is None:
            raise VideoError("no video stream")
        return look_through(
            container,
            stream,
            path,
            file_bytes=paths.getsize(path) if local_files_only else math.inf,
            frame_rates=frame_rates,
            end_seconds=end_seconds,
            on_packet=on_packet,
        ).facts


class Seen(NamedTuple):
    """What one pass over a file has seen.

    Attributes:
        facts: that its packets say.
        unused: of the pictures' packets, in the order of the file, those that can be skipped; None
            where nothing can.
    """

    facts: PacketFacts
    unused: skipping.Unused | None


def look_through(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    path: str,
    *,
    file_bytes: float,
    frame_rates: Sequence[float] = (),
    end_seconds: float | None = None,
    on_packet: Callable[[], None] = ignore_packet,
    on_picture: Callable[[av.Packet], None] = ignore_picture,
) -> Seen:
    """Read all packets of a container that has been opened, and not been read yet.

    Args:
        path: of its file.
        file_bytes: that the file has.
        frame_rates, end_seconds, on_packet: see `look_at_packets`.
        on_picture: is given each packet of the stream, also those that are read again.

    Raises:
        av.FFmpegError, OSError: the file cannot be read.
    """
    times, ends = _Times(), _Ends(end_seconds)
    num_bytes = num_bytes_read = num_discarded = 0
    is_encrypted = False
    time_base = float(stream.time_base or 0)
    kind = container.format.name.split(",")[0]
    num_promised = stream.frames
    rate = float(stream.average_rate or 0)
    start = start_seconds(container)
    may_jump = bool(container.format.flags & TIMES_MAY_JUMP)
    duration = find_duration(container, stream) if kind in PROMISING else None
    roles = _find_roles(container, stream) if frame_rates else None
    # Which of the two ffmpeg counts from depends on the container.
    starts = {
        Fraction(container.start_time or 0, av.time_base),
        (stream.start_time or 0) * (stream.time_base or Fraction(0)),
    }
    try:
        for packet in iter_packets(container, on_unknown=ends.note_unknown):
            on_packet()
            is_picture = packet.stream_index == stream.index
            ends.note(packet, start, is_picture=is_picture)
            if not is_picture or not packet.size:
                continue
            on_picture(packet)
            num_bytes_read += packet.size
            if num_bytes_read > file_bytes:  # an edit list has them read again
                roles = None
                if num_bytes_read > MAX_REREADS * file_bytes:
                    ends.note_unknown()
                    break
                continue
            num_bytes += packet.size
            num_discarded += packet.is_discard
            is_encrypted = is_encrypted or packet.has_sidedata("encryption_info")
            times.note(packet, time_base)
            if roles is not None and (is_encrypted or not roles.note(packet)):
                roles = None
    except av.FFmpegError:
        pass  # it ends here
    unused = packet_filter = None
    if roles is not None and stream.time_base is not None:
        unused = roles.unused(stream.time_base, starts, frame_rates)
        if unused is not None and unused.guarded.any():
            packet_filter = skipping.as_filter(unused.guarded)
    gaps, late = times.gaps(may_jump=may_jump), times.late_seconds(start)
    if not times.shown and rate:  # of raw streams in other files
        gaps = [1 / rate] * times.num_packets
    usual = median(gaps) if gaps else 0.0
    told = _avi_seconds_per_frame(path) if kind == "avi" else None
    facts = PacketFacts(
        num_packets=times.num_packets,
        num_bytes=num_bytes,
        steady_seconds=(told or usual) * times.num_packets,
        # One for the last of them, and for each that comes before a jump.
        span_seconds=late + sum(gaps) + usual * max(1, len(times.shown) - len(gaps)),
        longest_seconds=0.0 if may_jump else max([late, *gaps]),
        has_promise=kind in PROMISING,
        avi_seconds=told * num_promised if told and num_promised else None,
        is_encrypted=is_encrypted,
        num_discarded=num_discarded,
        promised_seconds=duration.seconds if duration else None,
        is_promise_of_pictures=duration is not None and duration.is_of_pictures,
        last_begin_seconds=ends.last_begin,
        last_key_seconds=ends.last_key,
        picture_end_seconds=ends.of_pictures,
        end_seconds=None if ends.has_unknown else ends.of_all,
        packet_filter=packet_filter,
    )
    return Seen(facts, unused)


class _Times:
    """The times of the pictures' packets.

    Attributes:
        shown: at which they are shown, where that is known, in seconds.
    """

    def __init__(self) -> None:
        self.num_packets = 0
        self.shown = array("d")
        self._stored = array("d")

    def note(self, packet: av.Packet, time_base: float) -> None:
        self.num_packets += 1
        time = packet.dts if packet.pts is None else packet.pts
        if time is not None:
            self.shown.append(time * time_base)
            self._stored.append((time if packet.dts is None else packet.dts) * time_base)

    def late_seconds(self, start: float) -> float:
        """Return how late the first one is shown, which stands from the start."""
        return max(0.0, min(self.shown) - start) if self.shown else 0.0

    def gaps(self, *, may_jump: bool) -> list[float]:
        """Return the seconds from one picture to the next, without jumps."""
        if may_jump:
            steps = [after - before for before, after in pairwise(self._stored)]
            return [step for step in steps if 0 < step <= MAX_JUMP_SECONDS]
        return [after - before for before, after in pairwise(sorted(self.shown))]


class _Ends:
    """Where packets end, in seconds from the file's start."""

    def __init__(self, end_seconds: float | None):
        """
        Args:
            end_seconds: of the part that is decoded.
        """
        self.last_begin = self.last_key = self.of_pictures = self.of_all = 0.0
        self.has_unknown = False
        self._end_seconds = math.inf if end_seconds is None else end_seconds
        self._time_bases: dict[int, Fraction] = {}

    def note_unknown(self) -> None:
        """Note that nobody can say when all of it ends."""
        self.has_unknown = True

    def note(self, packet: av.Packet, start: float, *, is_picture: bool) -> None:
        if packet.pts is None:
            return
        time_base = self._time_bases.get(packet.stream_index)
        if time_base is None:  # to make a fraction takes as long as to read a packet
            time_base = self._time_bases[packet.stream_index] = packet.time_base
        unit, units = time_base.numerator, time_base.denominator
        begin = packet.pts * unit / units - start
        end = begin + (packet.duration or 0) * unit / units
        self.of_all = max(self.of_all, end)
        if is_picture:
            if begin < self._end_seconds:
                self.last_begin = max(self.last_begin, begin)
                if packet.is_keyframe:
                    self.last_key = max(self.last_key, begin)
            self.of_pictures = max(self.of_pictures, end)


def _find_roles(container: av.container.InputContainer, stream: av.VideoStream) -> _Roles | None:
    """Return what finds out what depends on what; None if that cannot be known."""
    if container.format.name.split(",")[0] not in skipping.CONTAINERS or not has_decoder(stream):
        return None
    context = stream.codec_context
    codec = context.codec.canonical_name  # whatever decodes it here
    look = look_of(codec, context.extradata or b"") if codec in skipping.CODECS else None
    return None if look is None else _Roles(look)


class _Roles:
    """Who may refer to the pictures of which packets."""

    def __init__(self, look: Look):
        self._look = look
        self._pts = array("q")
        self._layers = array("b")
        self._flags = bytearray()

    def note(self, packet: av.Packet) -> bool:
        """Look into a packet; False if nothing can be said of any of them."""
        if len(self._pts) == skipping.MAX_PACKETS:
            return True
        if packet.pts is None or packet.is_corrupt:
            return False
        try:
            role = self._look(memoryview(packet), packet.is_keyframe)
        except (IndexError, ValueError):  # damaged, or not simple
            return False
        self._pts.append(packet.pts)
        self._layers.append(role.layer)
        is_shown = not packet.is_discard
        flags = is_shown, role.is_reference, role.starts_sequence, role.refers_back
        self._flags.append(sum(flag << k for k, flag in enumerate(flags)))
        return True

    def unused(
        self, time_base: Fraction, starts: set[Fraction], frame_rates: Sequence[float]
    ) -> skipping.Unused | None:
        flags = np.frombuffer(bytes(self._flags), np.uint8)
        packets = skipping.Packets(
            pts=np.array(self._pts, np.int64),
            is_shown=(flags & 1).astype(bool),
            layer=np.array(self._layers, np.int64),
            is_reference=(flags & 2).astype(bool),
            starts_sequence=(flags & 4).astype(bool),
            refers_back=(flags & 8).astype(bool),
        )
        return skipping.find_unused(packets, time_base, starts, frame_rates)


def _avi_seconds_per_frame(path: str) -> float | None:
    """Return what an AVI's main header says, beside that of its stream; None if it says nothing.

    `avih` is the first chunk of the list `hdrl`, and dwMicroSecPerFrame its first field (Microsoft,
    AVI RIFF File Reference).
    """
    with open(path, "rb") as file:
        start = file.read(36)
    if start[24:28] != b"avih":
        return None
    return int.from_bytes(start[32:36], "little") / 1e6 or None

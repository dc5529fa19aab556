"""Where in a file decoding of a part of it can begin, and its frames are the same, byte for byte.

That is a key frame before the part. It has to be one from which on all is decodable, and nothing is
different from what it would be if decoding had begun at the start: a look into its packet tells.
Elsewhere, decoding begins at the start of the file. `test_parts` compares.

This reads the file's index and a few packets. It runs in a worker process: see `libav`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Literal, NamedTuple

import av

from videofeatures.decoding.bitstreams import nal_length_size
from videofeatures.decoding.parts import Landing
from videofeatures.decoding.probe import (
    first_video_stream,
    has_decoder,
    ignore_packet,
    iter_packets,
    open_container,
)
from videofeatures.errors import VideoError

CONTAINERS = ("mov", "matroska")
"""Those with an index, whose times are written down. In an AVI they are guessed from the number of
the frame, MPEG-TS and others have no index, and an FLV's often has another's times."""

CODECS = (
    *("h264", "hevc"),  # into which there is a look
    *("vp8", "vp9", "av1", "mpeg4", "mpeg2video", "mpeg1video"),
    *("mjpeg", "prores", "dnxhd", "ffv1"),
)
"""Of which a key frame, as the container has it, is one."""

DISTANCES_SECONDS = (1, 10, 60, 300)
"""How far before the start a key frame is looked for, the nearest first. The first is a margin: no
version of libavformat finds another one that is behind the start."""

MICROSECONDS = 1_000_000


class _Key(NamedTuple):
    ticks: int  # from where it was looked for, 0 or less
    is_open: bool


def find_landing(
    path: str,
    start_seconds: float,
    *,
    local_files_only: bool = True,
    on_packet: Callable[[], None] = ignore_packet,
) -> Landing:
    """Return where decoding begins, for all frames from a time on.

    Args:
        start_seconds: from the container's zero.
        on_packet: is called for each packet that is read.

    Raises:
        VideoError: there is no video stream.
        av.FFmpegError, OSError: the file cannot be read.
    """
    with open_container(path, local_files_only=local_files_only) as container:
        stream = first_video_stream(container)
        if stream is None or not stream.time_base:
            raise VideoError("no video stream")
        beginning = Landing(stream.time_base)
        if not _can_seek(container, stream):
            return beginning
        # Of these steps, both ticks and microseconds have a whole number: `-ss` shifts times by
        # exactly as much.
        steps = math.gcd(stream.time_base.denominator, MICROSECONDS)
        for distance in DISTANCES_SECONDS:
            step = math.floor((Fraction(str(start_seconds)) - distance) * steps)
            if step <= 0:
                break
            ticks = step * (stream.time_base.denominator // steps)
            key = _find_key(container, stream, ticks, on_packet)
            if key is not None and ticks + key.ticks > 0:
                seconds = Fraction(step, steps)
                return Landing(stream.time_base, seconds, key.ticks, key.is_open)
        return beginning


def _can_seek(container: av.container.InputContainer, stream: av.VideoStream) -> bool:
    cover = av.stream.Disposition.attached_pic
    others = [s for s in container.streams.video if s is not stream and not s.disposition & cover]
    return (
        container.format.name.split(",")[0] in CONTAINERS
        and not others  # ffmpeg may look for the key frames of these
        and stream.time_base is not None
        and stream.time_base.numerator == 1
        and has_decoder(stream)
        and stream.codec_context.codec.canonical_name in CODECS  # whatever decodes it here
    )


def _find_key(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    ticks: int,
    on_packet: Callable[[], None],
) -> _Key | None:
    """Return the key frame before a time, or None if it is not a good one.

    Args:
        ticks: from the container's zero.
    """
    assert stream.time_base is not None
    zero = Fraction(container.start_time or 0, MICROSECONDS) / stream.time_base
    ticks += math.floor(zero + Fraction(1, 2))
    try:
        container.seek(ticks, stream=stream, backward=True)
        packet = next((p for p in iter_packets(container, stream) if p.size), None)
    except (av.FFmpegError, OverflowError):
        return None  # no index, or one that is damaged
    on_packet()
    if packet is None or packet.pts is None or packet.is_discard or packet.is_corrupt:
        return None
    if packet.pts > ticks or not packet.is_keyframe:
        return None
    kind = _kind_of_key(stream, packet)
    return _Key(packet.pts - ticks, kind == "open") if kind else None


def _kind_of_key(stream: av.VideoStream, packet: av.Packet) -> Literal["closed", "open"] | None:
    """Return what group of pictures a key frame begins, as far as its decoder complains of an open
    one; None if decoding from there on does not give all that is shown after it as it is."""
    codec = stream.codec_context.codec.canonical_name
    if codec not in ("h264", "hevc"):
        return "closed"
    length_size = nal_length_size(codec, stream.codec_context.extradata or b"")
    for unit in _nal_units(bytes(packet), length_size):
        if codec == "hevc":
            kind = unit[0] >> 1 & 63
            if kind < 32:  # the first slice
                return "closed" if 16 <= kind <= 21 else None  # BLA, IDR or CRA
            continue
        kind = unit[0] & 31
        if kind == 5:  # IDR
            return "closed"
        if kind == 6 and _recovers_at_once(unit[1:]):
            return "open"
    return None


def _nal_units(data: bytes, length_size: int) -> Iterator[bytes]:
    """Yield the NAL units of a packet that are not empty, as far as their lengths make sense."""
    if not length_size:
        yield from filter(None, data.split(b"\0\0\1")[1:])
        return
    place = 0
    while place < len(data):
        begin = place + length_size
        place = begin + int.from_bytes(data[place:begin], "big")
        if data[begin:place]:
            yield data[begin:place]


def _recovers_at_once(payload: bytes) -> bool:
    """Whether supplemental information says that pictures are right from this one on.

    ITU-T H.264, 7.3.2.3.1 and D.1.8: a recovery point is of type 6, and begins with the number of
    frames that it takes, of which the code for 0 is a single bit, 1. With periodic intra refresh,
    it takes some.
    """
    payload = payload.replace(b"\0\0\3", b"\0\0")
    place = 0
    while place + 2 < len(payload):
        numbers = []
        for _ in range(2):  # type and size: each 255 is followed by more
            number = 0
            while place < len(payload) and payload[place] == 255:
                number, place = number + 255, place + 1
            if place >= len(payload):
                return False
            numbers.append(number + payload[place])
            place += 1
        kind, size = numbers
        if kind == 6:
            return place < len(payload) and bool(payload[place] & 0x80)
        place += size
    return False

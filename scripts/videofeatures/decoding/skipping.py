"""Packets that need not be decoded: no frame that is taken depends on them.

A first pass over the packets, without decoding, finds the frames that ffmpeg's `fps` filter
will take. Of the others, two kinds can go: those that no frame refers to, and those after
the last taken frame of a sequence, up to the key frame that starts the next one. ffmpeg
drops them as it reads the file, so that times, edit lists and rotation stay its own.

Frames are the same, byte for byte, as long as the file is undamaged: `test_skipping` compares them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

import av
import numpy as np

from videofeatures.decoding.probe import (
    first_video_stream,
    has_decoder,
    ignore_packet,
    iter_packets,
    open_container,
)

CONTAINERS = ("mov", "matroska")
"""Those whose times are written down, not guessed (AVI) and not shifted (MPEG-TS)."""

MIN_FRAMES_PER_SAMPLE = 4
"""Where more than every fourth frame is taken, nothing is won (measured)."""

MAX_PACKETS = 100_000
"""What comes after is decoded as usual: an argument of a process has 128 KiB at most."""

GUARD = 32
"""Packets at both ends that are always decoded: more than any codec reorders, and the end
decides how many frames the filter gives."""

FLAGS_PER_NUMBER = 50
"""ffmpeg's expressions compute in double precision, which is exact to 53 bits."""


class _Packet(NamedTuple):
    pts: int
    is_shown: bool
    is_reference: bool
    starts_sequence: bool  # nothing after it refers to anything before it


def skip_filter(
    path: str,
    frame_rate: float,
    *,
    local_files_only: bool = True,
    on_packet: Callable[[], None] = ignore_packet,
) -> str | None:
    """Return the bitstream filter that skips what `frame_rate` has no use for.

    Args:
        on_packet: is called for each packet that is read.

    Returns:
        A value for ffmpeg's input option `-bsf` (version 7 or newer), or None where nothing
        can be skipped or nothing is known: another container, codec or rate, odd times.

    Raises:
        av.FFmpegError, OSError: the file cannot be read.
    """
    with open_container(path, local_files_only=local_files_only) as container:
        stream = first_video_stream(container)
        if stream is None or not has_decoder(stream):  # the file is another one by now
            return None
        if container.format.name.split(",")[0] not in CONTAINERS:
            return None
        if (stream.average_rate or 0) < MIN_FRAMES_PER_SAMPLE * frame_rate:
            return None
        time_base = stream.time_base
        if time_base is None:
            return None
        # Which of the two ffmpeg counts from depends on the container.
        starts = {
            Fraction(container.start_time or 0, av.time_base),
            (stream.start_time or 0) * time_base,
        }
        packets = _read_packets(container, stream, on_packet)
    if not packets:
        return None
    is_taken = _find_taken(packets, time_base, starts, Fraction(str(frame_rate)))
    skipped = _find_skipped(packets, is_taken)
    return _as_filter(skipped) if skipped.any() else None


def _read_packets(
    container: av.container.InputContainer, stream: av.VideoStream, on_packet: Callable[[], None]
) -> list[_Packet]:
    """Return the stream's packets, or none if there is no telling what depends on what."""
    codec = stream.codec_context.name
    if codec not in ("h264", "hevc", "vp8", "vp9"):
        return []
    length_size = nal_length_size(codec, stream.codec_context.extradata or b"")
    packets: list[_Packet] = []
    for packet in iter_packets(container, stream):
        on_packet()
        if not packet.size:
            continue
        if len(packets) == MAX_PACKETS:
            break
        if packet.pts is None or packet.is_corrupt:
            return []
        is_reference, starts_sequence = True, packet.is_keyframe
        if codec in ("h264", "hevc"):
            try:
                is_reference, starts_sequence = _look_inside(codec, packet, length_size)
            except (IndexError, ValueError):
                return []  # damaged, or not simple
        shown = not packet.is_discard
        packets.append(_Packet(packet.pts, shown, is_reference, starts_sequence))
    return packets if _are_sequences_apart(packets) else []


def _are_sequences_apart(packets: list[_Packet]) -> bool:
    """Return whether all times differ, and no frame is shown before one of an earlier sequence."""
    if len({packet.pts for packet in packets}) < len(packets):
        return False
    starts = [k for k, packet in enumerate(packets) if packet.starts_sequence]
    times = [[packet.pts for packet in packets[a:b]] for a, b in pairwise([0, *starts, None])]
    times = [sequence for sequence in times if sequence]
    return all(max(before) < min(after) for before, after in pairwise(times))


def _find_taken(
    packets: list[_Packet], time_base: Fraction, starts: set[Fraction], frame_rate: Fraction
) -> np.ndarray:
    """Return which packets are taken, (packets,), bool, with a neighbour of each and both ends.

    The filter takes the last frame before each second (k + 0.5) / frame_rate.
    """
    pts = np.array([packet.pts for packet in packets], object)  # Python's integers: no overflow
    order = np.argsort(pts, kind="stable")
    order = order[[packets[k].is_shown for k in order]]
    is_taken = np.zeros(len(packets), bool)
    for start in starts:
        scale, offset = time_base * frame_rate, Fraction(1, 2) - start * frame_rate
        divisor = scale.denominator * offset.denominator
        number = pts[order] * (scale.numerator * offset.denominator)
        number = (number + offset.numerator * scale.denominator) // divisor
        (edges,) = np.nonzero(number[1:] != number[:-1])
        is_taken[order[edges]] = is_taken[order[edges + 1]] = True
    is_taken[:GUARD] = is_taken[-GUARD:] = True
    return is_taken


def _find_skipped(packets: list[_Packet], is_taken: np.ndarray) -> np.ndarray:
    """Return which packets can be skipped, (packets,), bool."""
    skipped = np.zeros(len(packets), bool)
    is_needed = False  # by a taken frame that comes later in this sequence
    for k in reversed(range(len(packets))):
        is_needed |= bool(is_taken[k])
        skipped[k] = not is_needed or not (packets[k].is_reference or is_taken[k])
        if packets[k].starts_sequence:
            is_needed = False
    return skipped


def _as_filter(skipped: np.ndarray) -> str:
    """Return flags as an expression of the packet's number n, which finds its flag by halves."""
    numbers = [
        sum(int(flag) << k for k, flag in enumerate(skipped[start : start + FLAGS_PER_NUMBER]))
        for start in range(0, len(skipped), FLAGS_PER_NUMBER)
    ]

    def find(first: int, last: int) -> str:
        if last - first == 1:
            return str(numbers[first])
        middle = (first + last) // 2
        limit = middle * FLAGS_PER_NUMBER
        return f"if(lt(n,{limit}),{find(first, middle)},{find(middle, last)})"

    size = FLAGS_PER_NUMBER
    flag = f"mod(floor(({find(0, len(numbers))})/pow(2,mod(n,{size}))),2)"
    expression = f"lt(n,{len(skipped)})*{flag}".replace(",", "\\,")
    return f"noise=drop='{expression}'"


# --- H.264 (ITU-T H.264, 7.3.1) and HEVC (ITU-T H.265, 7.3.1.2)


def nal_length_size(codec: str, extradata: bytes) -> int:
    """Return the size in bytes of each NAL unit's length; 0 if start codes set them apart."""
    if codec == "h264" and extradata[:1] == b"\x01":
        return (extradata[4] & 3) + 1
    if codec == "hevc" and len(extradata) > 22 and extradata[:3] not in (b"\0\0\0", b"\0\0\1"):
        return (extradata[21] & 3) + 1
    return 0


def _nal_headers(data: memoryview, length_size: int) -> Iterator[tuple[int, int]]:
    """Yield the first two bytes of each NAL unit. ValueError if lengths do not add up."""
    if not length_size:
        whole = bytes(data)
        place = whole.find(b"\0\0\1")
        while 0 <= place < len(whole) - 4:
            yield whole[place + 3], whole[place + 4]
            place = whole.find(b"\0\0\1", place + 3)
        return
    place = 0
    while place < len(data):
        length = int.from_bytes(data[place : place + length_size], "big")
        yield data[place + length_size], data[place + length_size + 1]
        place += length_size + length
    if place != len(data):
        raise ValueError("damaged packet")


def _look_inside(codec: str, packet: av.Packet, length_size: int) -> tuple[bool, bool]:
    """Return (is a reference, starts a sequence). In doubt, a packet is a reference."""
    is_reference, starts_sequence, has_picture = False, False, False
    for first, second in _nal_headers(memoryview(packet), length_size):
        if codec == "h264":
            kind = first & 31
            if 1 <= kind <= 5:  # slices; nal_ref_idc is 0 in those that nothing refers to
                has_picture = True
                is_reference |= bool(first & 0x60)
                starts_sequence |= kind == 5  # IDR
            elif kind > 13:  # other layers
                is_reference = True
        else:
            kind = first >> 1 & 63
            if kind < 32:  # slices; up to 14, the even ones are sub-layer non-references
                has_picture = True
                is_reference |= kind > 14 or kind % 2 == 1
                starts_sequence |= kind in (19, 20)  # IDR
                # A higher sub-layer may refer to a lower one's non-references.
                if (first & 1) << 5 | second >> 3 or second & 7 != 1:
                    raise ValueError("several layers")
    return is_reference or not has_picture, starts_sequence

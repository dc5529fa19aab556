"""Packets that need not be decoded: no frame that is taken depends on them.

What the packets say, without decoding, tells which frames ffmpeg's `fps` filter will take. Of the
others, two kinds can go: those that no frame refers to, and those after the last taken frame of a
sequence, up to the key frame that starts the next one. ffmpeg drops them as it reads the file, so
that times, edit lists and rotation stay its own.

Frames are the same, byte for byte, as long as the file is undamaged: `test_skipping` compares
them. Where ffmpeg complains of a file, it is decoded again, whole: see `ffmpeg_decoder`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from videofeatures.decoding.decoder import VideoMetadata

CONTAINERS = ("mov", "matroska")
"""Those whose times are written down, not guessed (AVI) and not shifted (MPEG-TS)."""

CODECS = ("h264", "hevc", "vp8", "vp9", "av1")
DECODERS = (*CODECS, "libdav1d", "libaom-av1")
"""Names of what decodes them, as `VideoMetadata` has it."""

MIN_FRAMES_PER_SAMPLE = 4
"""Where more than every fourth frame is taken, nothing is won (measured)."""

MAX_PACKETS = 100_000
"""What comes after is decoded as usual: an argument of a process has 128 KiB at most."""

GUARD = 32
"""Packets at both ends that are always decoded: more than any codec reorders, and the end
decides how many frames the filter gives."""

MARGIN_TICKS = 2
"""By which ffmpeg may have another time for a frame than its packet says: it subtracts the file's
start, which it has rounded to microseconds and then to ticks of the stream's clock."""

FLAGS_PER_NUMBER = 50
"""ffmpeg's expressions compute in double precision, which is exact to 53 bits."""

MAX_EXACT = 2**62
"""Below this, int64 holds a time; of others, Python's integers do."""


class Packets(NamedTuple):
    """What is known of a stream's packets, in the order of the file; each is (packets,).

    Attributes:
        pts: int64, all different.
        is_shown: bool; not where an edit list cuts the picture off.
        layer, is_reference, starts_sequence, refers_back: of `bitstreams.Role`: int64, and bool.
    """

    pts: np.ndarray
    is_shown: np.ndarray
    layer: np.ndarray
    is_reference: np.ndarray
    starts_sequence: np.ndarray
    refers_back: np.ndarray


class Unused(NamedTuple):
    """Which packets need not be decoded; each is (packets,), bool.

    Attributes:
        guarded: without those at both ends: `GUARD`.
        of_all: but the first and the last that is shown: for who sees that of each packet that is
            decoded a picture has come.
    """

    guarded: np.ndarray
    of_all: np.ndarray


def rates_to_skip_for(
    metadata: VideoMetadata, frame_rates: Iterable[float | None]
) -> tuple[float, ...] | None:
    """Return the rates for which a video's packets may be skipped; None if none of them can be.

    Args:
        frame_rates: of all views that the frames are for; None of one without a constant rate.
    """
    rates = tuple(frame_rates)
    known = [rate for rate in rates if rate is not None]
    if len(known) < len(rates) or not known:
        return None
    if metadata.container not in CONTAINERS or metadata.codec not in DECODERS:
        return None
    # Several rates may share what they take: the highest of them decides.
    return tuple(known) if is_worth_it(metadata.average_fps, known) else None


def is_worth_it(average_fps: float | None, frame_rates: Sequence[float]) -> bool:
    """Whether few enough frames of a video are taken."""
    return (average_fps or 0) >= MIN_FRAMES_PER_SAMPLE * max(frame_rates)


def find_unused(
    packets: Packets,
    time_base: Fraction,
    starts: Iterable[Fraction],
    frame_rates: Iterable[float],
) -> Unused | None:
    """Return which packets none of some rates has a use for.

    Args:
        time_base: of `pts`, in seconds.
        starts: of the file, in seconds, from one of which ffmpeg counts.

    Returns:
        None where nothing can be skipped.
    """
    if not len(packets.pts) or not _are_sequences_apart(packets):
        return None
    is_taken = np.zeros(len(packets.pts), bool)
    for frame_rate in frame_rates:
        is_taken |= find_taken(packets, time_base, starts, Fraction(str(frame_rate)))
    is_taken[[packets.pts.argmin(), packets.pts.argmax()]] = True
    of_all = find_skipped(packets, is_taken)
    is_taken[:GUARD] = is_taken[-GUARD:] = True
    guarded = find_skipped(packets, is_taken)
    return Unused(guarded, of_all) if of_all.any() else None


def _are_sequences_apart(packets: Packets) -> bool:
    """Return whether all times differ, and no frame is shown before one of an earlier sequence."""
    if len(np.unique(packets.pts)) < len(packets.pts):
        return False
    first = np.union1d([0], np.flatnonzero(packets.starts_sequence))
    earliest = np.minimum.reduceat(packets.pts, first)
    latest = np.maximum.reduceat(packets.pts, first)
    return bool((latest[:-1] < earliest[1:]).all())


def find_taken(
    packets: Packets, time_base: Fraction, starts: Iterable[Fraction], frame_rate: Fraction
) -> np.ndarray:
    """Return which packets the filter may take: (packets,), bool.

    It takes the last frame before each second (k + 0.5) / frame_rate; where that is within
    `MARGIN_TICKS` of a frame's time, its neighbour counts, too.
    """
    order = np.argsort(packets.pts, kind="stable")
    order = order[packets.is_shown[order]]
    is_taken = np.zeros(len(packets.pts), bool)
    margins = range(-MARGIN_TICKS, MARGIN_TICKS + 1)
    for start in {start + ticks * time_base for start in starts for ticks in margins}:
        scale, offset = time_base * frame_rate, Fraction(1, 2) - start * frame_rate
        divisor = scale.denominator * offset.denominator
        factor, summand = scale.numerator * offset.denominator, offset.numerator * scale.denominator
        times = packets.pts[order]
        largest = int(np.abs(times).max(initial=0)) * factor + abs(summand)
        if max(largest, divisor) > MAX_EXACT:
            times = times.astype(object)
        number = (times * factor + summand) // divisor
        (edges,) = np.nonzero(number[1:] != number[:-1])
        is_taken[order[edges]] = True
    return is_taken


def find_skipped(packets: Packets, is_taken: np.ndarray) -> np.ndarray:
    """Return which packets can be skipped: (packets,), bool.

    A picture may be referred to by those that come later in its sequence: of higher layers, and, if
    it is a reference, of its own.
    """
    skipped = np.zeros(len(is_taken), bool)
    columns = (is_taken, *packets[2:])
    rows = list(zip(*(column.tolist() for column in columns), strict=True))
    highest = -1  # layer of those needed that come later in this sequence
    reaches_back = False
    for k in reversed(range(len(rows))):
        taken, layer, is_reference, starts_sequence, refers_back = rows[k]
        if taken or layer < highest or (is_reference and layer == highest):
            highest = max(highest, layer)
            reaches_back |= refers_back
        else:
            skipped[k] = True
        if starts_sequence:
            highest, reaches_back = (highest if reaches_back else -1), False
    return skipped


def as_filter(skipped: np.ndarray) -> str:
    """Return flags as a value for ffmpeg's input option `-bsf`: an expression of the packet's
    number n, which finds its flag by halves."""
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

"""What a video may ask for: how many frames of it can be true, and of which shape.

A header may say anything, and so may the times of packets: a few damaged bytes make hours of a
video of seconds, in which pictures are repeated. While there are no more frames than header and
size of the file are good for, they are taken. Once there are more, the packets are looked at, by
`packets`, and have to justify them.
"""

from __future__ import annotations

from dataclasses import dataclass

from videofeatures.decoding.decoder import VideoMetadata
from videofeatures.errors import VideoError

TOLERANCE_SECONDS = 5.0
TOLERANCE_SHARE = 0.1
"""How much longer a video may be than what speaks for its length: headers are wrong by rounding,
by the sound's length, and by times that start late."""

END_TOLERANCE_SECONDS = 1.0
"""What may be missing at an end: headers are wrong by some frames, and by the length of a sound
packet."""

BYTES_PER_SECOND = 1000
"""A file with less may be slides, or may be damaged: its packets tell. The videos of phones and of
the web have from 20,000 on."""

MIN_BYTES_PER_SECOND = 1
"""What the pictures' packets must have where one picture stands for long: a slide a minute, which
nothing changes, is 100 bytes of H.264 (measured)."""

MIN_USUAL_FPS = 5
"""A video of fewer is a time lapse, or has a damaged header."""

STEADY_SHARE = 2
"""How many times longer than its packets, at the video's own rate, a video must be before times
alone do not speak for it."""


@dataclass(frozen=True)
class PacketFacts:
    """What a file's packets say of its pictures.

    Attributes:
        num_packets: of pictures; those that were read again, as edit lists do, do not count.
        num_bytes: of them.
        steady_seconds: their length, if all pictures stood as long as half of them do; or, in an
            AVI, as long as its main header says.
        span_seconds: their length by their times. Where times may jump (MPEG), without the jumps.
        longest_seconds: that one picture stands.
        has_promise: the header of such a file states its length; others have it worked out from
            the packets' times.
        avi_seconds: that the main header of an AVI promises; it may contradict its stream's.
        is_encrypted: some of them are.
        num_discarded: of the packets, those whose pictures an edit list cuts off.
        promised_seconds: that the header promises, of `find_duration`; None of such a file whose
            header does not state its length.
        is_promise_of_pictures: it is the end of the last picture, not of whatever ends last.
        last_begin_seconds, last_key_seconds: at which the last picture, and the last key frame,
            begins, of those before the end of the part that is decoded; from the file's start.
        picture_end_seconds: at which the last picture ends, from the file's start.
        end_seconds: at which the last packet of all ends, from there; None if there is no telling.
        packet_filter: ffmpeg's bitstream filter that skips what need not be decoded, for the rates
            that were asked for; None if that is nothing.
    """

    num_packets: int
    num_bytes: int
    steady_seconds: float
    span_seconds: float
    longest_seconds: float
    has_promise: bool
    avi_seconds: float | None
    is_encrypted: bool
    num_discarded: int = 0
    promised_seconds: float | None = None
    is_promise_of_pictures: bool = False
    last_begin_seconds: float = 0.0
    last_key_seconds: float = 0.0
    picture_end_seconds: float = 0.0
    end_seconds: float | None = None
    packet_filter: str | None = None


def unquestioned_seconds(metadata: VideoMetadata, file_bytes: int) -> float:
    """Return how long a video may be without a look at its packets."""
    by_size = file_bytes / BYTES_PER_SECOND + TOLERANCE_SECONDS
    promised = metadata.duration_seconds
    return by_size if promised is None else min(with_tolerance(promised), by_size)


def is_questionable(metadata: VideoMetadata, num_packets: int | None, seconds: float) -> bool:
    """Whether a video that was decoded is much longer than so many packets at a usual rate."""
    if num_packets is None or not metadata.average_fps:
        return False
    if metadata.average_fps < MIN_USUAL_FPS:
        return True
    return seconds > STEADY_SHARE * num_packets / metadata.average_fps + TOLERANCE_SECONDS


def justified_seconds(
    metadata: VideoMetadata, facts: PacketFacts, max_still_seconds: float
) -> float:
    """Return how long a video can be, by all that is known of it.

    Raises:
        VideoError: one picture stands for too long.
    """
    if facts.longest_seconds > max_still_seconds:
        raise VideoError(
            f"one picture stands for {facts.longest_seconds:,.0f} s by its times: damaged. If it "
            f"is right, raise `max_still_seconds` (now {max_still_seconds:g})"
        )
    by_size = facts.num_bytes / MIN_BYTES_PER_SECOND + max_still_seconds
    by_times = facts.span_seconds
    promised = metadata.duration_seconds if facts.avi_seconds is None else facts.avi_seconds
    if facts.has_promise and promised is not None:
        # Times beyond the header's are believed if there is a packet for them.
        by_times = min(by_times, max(promised, facts.steady_seconds))
    return with_tolerance(min(by_times, by_size))


def check_length(
    num_seconds: float,
    metadata: VideoMetadata,
    facts: PacketFacts,
    max_still_seconds: float,
) -> float:
    """Return how long the video may be.

    Args:
        num_seconds: that it has by its frames so far.

    Raises:
        VideoError: it is longer.
    """
    limit = justified_seconds(metadata, facts, max_still_seconds)
    if num_seconds <= limit:
        return limit
    promised = metadata.duration_seconds
    header = "" if promised is None else f"{promised:,.0f} s by its header, "
    raise VideoError(
        f"{max(num_seconds, facts.span_seconds):,.0f} s by its times, {header}"
        f"{facts.steady_seconds:,.0f} s by its {facts.num_packets:,} packets: damaged times"
    )


def check_shape(size: tuple[int, int], metadata: VideoMetadata, max_aspect_ratio: float) -> None:
    """Check the shape of what a network is given: its memory grows with it.

    Args:
        size: (width, height) of it.

    Raises:
        VideoError: it is too long for its breadth.
    """
    long, short = max(size), min(size)
    if long <= max_aspect_ratio * short:
        return
    aspect = metadata.sample_aspect_ratio
    pixels = f" with pixels of {aspect.numerator}:{aspect.denominator}" if aspect != 1 else ""
    raise VideoError(
        f"{metadata.width} × {metadata.height}{pixels} would be {size[0]} × {size[1]} for the "
        f"network: longer than `max_aspect_ratio` (now {max_aspect_ratio:g}) times its breadth"
    )


def with_tolerance(seconds: float) -> float:
    """Return how long a video may be, if so much speaks for it."""
    return seconds * (1 + TOLERANCE_SHARE) + TOLERANCE_SECONDS

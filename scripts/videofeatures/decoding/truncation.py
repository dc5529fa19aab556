"""Whether a video was decoded to the end that its container promises.

ffmpeg ends well on a file that was cut off. So where fewer frames came than the header's duration
is good for, its packets tell whether the file ends early, decoding stopped early, or something
else, sound or subtitles, is what lasts on.
"""

from __future__ import annotations

import math

from videofeatures.decoding.bounds import END_TOLERANCE_SECONDS, PacketFacts


def is_short(
    duration_seconds: float | None, most_decoded_seconds: float, end_seconds: float | None = None
) -> bool:
    """Whether less was decoded than a video, or a part of it, promises.

    Args:
        duration_seconds: that the header promises, of `find_duration`; None if it does not.
        most_decoded_seconds: how far it was decoded, at most, from where the file starts.
        end_seconds: of the part that was decoded; None for the end of the video.
    """
    if duration_seconds is None:
        return False
    if end_seconds is not None:
        duration_seconds = min(duration_seconds, end_seconds)
    return most_decoded_seconds < duration_seconds - END_TOLERANCE_SECONDS


def explain_end(
    facts: PacketFacts,
    decoded_seconds: float,
    *,
    rounding_seconds: float = 0.0,
    keyframes_only: bool = False,
    end_seconds: float | None = None,
) -> str | None:
    """Return what is missing at the end of a video, or of a part of it, for people, or
    None if nothing is.

    Args:
        facts: of its packets, looked at for this end.
        decoded_seconds: how far it was decoded, from where the file starts.
        rounding_seconds: by which that may be too little.
        keyframes_only: whether only key frames were decoded.
        end_seconds: of the part that was decoded; None for the end of the video.
    """
    promised = facts.promised_seconds
    if promised is None:
        return None
    if end_seconds is not None:
        promised = min(promised, end_seconds)
    # Of what is unknown, nobody can say when it ends.
    end = math.inf if facts.end_seconds is None else facts.end_seconds
    if facts.is_promise_of_pictures:
        end = facts.picture_end_seconds
    if end < promised - END_TOLERANCE_SECONDS:
        return f"ends at {max(end, 0):.0f} s of {promised:.0f} s: truncated"
    last = facts.last_key_seconds if keyframes_only else facts.last_begin_seconds
    if decoded_seconds + rounding_seconds < last - END_TOLERANCE_SECONDS:
        return f"decoding stops at {decoded_seconds:.0f} s of {promised:.0f} s: damaged"
    return None

"""Whether a video was decoded to the end that its container promises.

ffmpeg ends well on a file that was cut off. So where fewer frames came than the header's
duration is good for, the packets are looked through, without decoding: they tell whether the
file ends early, decoding stopped early, or something else, sound or subtitles, is what lasts on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import av

from videofeatures.decoding.bounds import END_TOLERANCE_SECONDS
from videofeatures.decoding.duration import PROMISING, find_duration, start_seconds
from videofeatures.decoding.probe import (
    first_video_stream,
    ignore_packet,
    iter_packets,
    open_container,
)
from videofeatures.errors import VideoError


def find_truncation(
    path: str,
    duration_seconds: float | None,
    decoded_seconds: float,
    *,
    rounding_seconds: float = 0.0,
    keyframes_only: bool = False,
    end_seconds: float | None = None,
    local_files_only: bool = True,
    on_packet: Callable[[], None] = ignore_packet,
) -> str | None:
    """Return what is missing at the end of a video, or of a part of it, for people, or
    None if nothing is.

    Args:
        duration_seconds: that the header promises, of `find_duration`; None if it does not.
        decoded_seconds: how far it was decoded, from where the file starts.
        rounding_seconds: by which that may be too little.
        keyframes_only: whether only key frames were decoded.
        end_seconds: of the part that was decoded; None for the end of the video.
        on_packet: is called for each packet that is read.

    Raises:
        av.FFmpegError, OSError, VideoError: the file cannot be read any more.
    """
    most_decoded = decoded_seconds + rounding_seconds
    if duration_seconds is not None and end_seconds is not None:
        duration_seconds = min(duration_seconds, end_seconds)
    if duration_seconds is None or most_decoded >= duration_seconds - END_TOLERANCE_SECONDS:
        return None
    with open_container(path, local_files_only=local_files_only) as container:
        pictures = first_video_stream(container)
        if pictures is None:  # the file is another one by now
            raise VideoError("no video stream")
        duration = find_duration(container, pictures)
        if duration is None or container.format.name.split(",")[0] not in PROMISING:
            return None
        last = _last_packets(
            container, pictures, on_packet, keyframes_only=keyframes_only, end_seconds=end_seconds
        )
    promised = duration.seconds if end_seconds is None else min(duration.seconds, end_seconds)
    end = last.picture_ends if duration.is_of_pictures else last.all_end
    if end < promised - END_TOLERANCE_SECONDS:
        return f"ends at {max(end, 0):.0f} s of {promised:.0f} s: truncated"
    if most_decoded < last.picture_begins - END_TOLERANCE_SECONDS:
        return f"decoding stops at {decoded_seconds:.0f} s of {promised:.0f} s: damaged"
    return None


class _Last(NamedTuple):
    """Seconds from the file's start.

    Attributes:
        picture_begins: of the last picture, of those that should have been decoded.
        picture_ends: of the last picture.
        all_end: of the last packet of all.
    """

    picture_begins: float
    picture_ends: float
    all_end: float


def _last_packets(
    container: av.container.InputContainer,
    pictures: av.VideoStream,
    on_packet: Callable[[], None],
    *,
    keyframes_only: bool,
    end_seconds: float | None,
) -> _Last:
    picture_begins, picture_ends, all_end = 0.0, 0.0, 0.0
    start = start_seconds(container)
    has_unknown = False

    def note_unknown() -> None:
        nonlocal has_unknown
        has_unknown = True

    try:
        for packet in iter_packets(container, on_unknown=note_unknown):
            on_packet()
            if packet.pts is None:
                continue
            begin = float(packet.pts * packet.time_base) - start
            end = begin + float((packet.duration or 0) * packet.time_base)
            all_end = max(all_end, end)
            if packet.stream.index == pictures.index:
                is_wanted = end_seconds is None or begin < end_seconds
                if is_wanted and (packet.is_keyframe or not keyframes_only):
                    picture_begins = max(picture_begins, begin)
                picture_ends = max(picture_ends, end)
    except av.FFmpegError:
        pass  # it ends here
    # Of what is unknown, nobody can say when it ends.
    return _Last(picture_begins, picture_ends, math.inf if has_unknown else all_end)

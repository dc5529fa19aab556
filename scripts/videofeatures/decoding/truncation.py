"""Whether a video was decoded to the end that its container promises.

ffmpeg ends well on a file that was cut off. So where fewer frames came than the header's
duration is good for, the packets are looked through, without decoding: they tell whether the
file ends early, decoding stopped early, or the pictures are just shorter than the sound.
"""

from __future__ import annotations

from collections.abc import Callable

import av

from videofeatures.decoding.probe import first_video_stream, ignore_packet, open_container
from videofeatures.errors import VideoError

TOLERANCE_SECONDS = 1.0
"""What may be missing: headers are wrong by some frames, and by the length of a sound packet."""

PROMISING = ("mov", "matroska", "avi", "asf", "flv")
"""Formats whose header states how long they are. In others (MPEG-TS, …), ffmpeg works the
duration out from what is there, and nothing is missing by it."""


def find_truncation(
    path: str,
    duration_seconds: float | None,
    num_frames: int,
    frame_rate: float,
    *,
    local_files_only: bool = True,
    on_packet: Callable[[], None] = ignore_packet,
) -> str | None:
    """Return what is missing at the end of a video, for people, or None if nothing is.

    Args:
        duration_seconds: that the header promises; None if it does not.
        num_frames: that were decoded, at `frame_rate`, from the container's zero.
        on_packet: is called for each packet that is read.

    Raises:
        av.FFmpegError, OSError, VideoError: the file cannot be read any more.
    """
    promised = duration_seconds
    decoded = num_frames / frame_rate
    # The filter rounds to the nearest frame.
    if promised is None or decoded + 0.5 / frame_rate >= promised - TOLERANCE_SECONDS:
        return None
    with open_container(path, local_files_only=local_files_only) as container:
        kind = container.format.name.split(",")[0]
        if kind not in PROMISING:
            return None
        start = (container.start_time or 0) / av.time_base
        last_picture, end = _last_packets(container, on_packet)
    # Matroska's duration is counted from zero, that of others from where they start.
    end -= 0 if kind == "matroska" else start
    if end < promised - TOLERANCE_SECONDS:
        return f"ends at {end:.0f} s of {promised:.0f} s: truncated"
    # Frames are counted from where the file starts.
    if decoded + 0.5 / frame_rate < last_picture - start - TOLERANCE_SECONDS:
        return f"decoding stops at {decoded:.0f} s of {promised:.0f} s: damaged"
    return None


def _last_packets(
    container: av.container.InputContainer, on_packet: Callable[[], None]
) -> tuple[float, float]:
    """Return the seconds at which the last picture begins, and the last packet of all ends."""
    pictures = first_video_stream(container)
    if pictures is None:  # the file is another one by now
        raise VideoError("no video stream")
    last_picture, end = 0.0, 0.0
    streams = [stream for stream in container.streams if stream.type in ("video", "audio")]
    try:
        for packet in container.demux(streams):
            on_packet()
            if packet.pts is None:
                continue
            begin = float(packet.pts * packet.time_base)
            end = max(end, begin + float((packet.duration or 0) * packet.time_base))
            if packet.stream.index == pictures.index:
                last_picture = max(last_picture, begin)
    except av.FFmpegError:
        pass  # it ends here
    return last_picture, end

"""What a file's packets say of its pictures: how many, how long, and whether they are encrypted.

A pass over the file, without decoding. It runs in a worker process: see `libav`.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from itertools import pairwise
from os import path as paths
from statistics import median

import av

from videofeatures.decoding.bounds import PacketFacts
from videofeatures.decoding.duration import PROMISING
from videofeatures.decoding.probe import (
    first_video_stream,
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


def look_at_packets(
    path: str,
    *,
    local_files_only: bool = True,
    on_packet: Callable[[], None] = ignore_packet,
) -> PacketFacts:
    """Read all packets of a video's pictures.

    Args:
        local_files_only: see `input_options`.
        on_packet: is called for each packet that is read.

    Raises:
        VideoError: there is no video stream.
        av.FFmpegError, OSError: the file cannot be read.
    """
    file_bytes = paths.getsize(path)
    shown, stored = array("d"), array("d")
    num_packets, num_discarded, num_bytes, is_encrypted = 0, 0, 0, False
    with open_container(path, local_files_only=local_files_only) as container:
        stream = first_video_stream(container)
        if stream is None:
            raise VideoError("no video stream")
        time_base = float(stream.time_base or 0)
        kind = container.format.name.split(",")[0]
        num_promised = stream.frames
        rate = float(stream.average_rate or 0)
        start = (container.start_time or 0) / av.time_base
        may_jump = bool(container.format.flags & TIMES_MAY_JUMP)
        try:
            for packet in iter_packets(container, stream):
                on_packet()
                num_bytes += packet.size
                if num_bytes > file_bytes and local_files_only:
                    break  # an edit list has them read again
                num_packets += packet.size > 0
                num_discarded += packet.size > 0 and packet.is_discard
                is_encrypted = is_encrypted or packet.has_sidedata("encryption_info")
                time = packet.dts if packet.pts is None else packet.pts
                if time is not None and packet.size:
                    shown.append(time * time_base)
                    stored.append((time if packet.dts is None else packet.dts) * time_base)
        except av.FFmpegError:
            pass  # it ends here
    if may_jump:
        steps = [after - before for before, after in pairwise(stored)]
        gaps = [step for step in steps if 0 < step <= MAX_JUMP_SECONDS]
    else:
        gaps = [after - before for before, after in pairwise(sorted(shown))]
    late = max(0.0, min(shown) - start) if shown else 0.0  # the first one stands from the start
    if not shown and rate:  # of raw streams in other files
        gaps = [1 / rate] * num_packets
    usual = median(gaps) if gaps else 0.0
    told = _avi_seconds_per_frame(path) if kind == "avi" else None
    return PacketFacts(
        num_packets=num_packets,
        num_bytes=num_bytes,
        steady_seconds=(told or usual) * num_packets,
        # One for the last of them, and for each that comes before a jump.
        span_seconds=late + sum(gaps) + usual * max(1, len(shown) - len(gaps)),
        longest_seconds=0.0 if may_jump else max([late, *gaps]),
        has_promise=kind in PROMISING,
        avi_seconds=told * num_promised if told and num_promised else None,
        is_encrypted=is_encrypted,
        num_discarded=num_discarded,
    )


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

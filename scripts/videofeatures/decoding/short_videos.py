"""Short videos, which workers decode without ffmpeg's program.

To start a program, to have it find out anew what a file is, and to pass packets and frames between
its threads is, of a clip of ten seconds, as much as a third of the work. libav's libraries give the
same frames in a process that is there already, where they are of versions that were compared, byte
for byte: `test_short_videos` does it. They decode what is simple alone: see `at_once`. Whatever is
not, and whatever libav complains of, is ffmpeg's, which decodes it from its beginning, so that
frames, messages and counts are those of the program.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from videofeatures.decoding.bounds import PacketFacts
from videofeatures.decoding.decoder import VideoMetadata
from videofeatures.decoding.ffmpeg import EXTRA_NICENESS, PIPE_BYTES, ffmpeg_version
from videofeatures.decoding.frames import MAX_THREADS, Sampling, filters_at_rate, group_sent
from videofeatures.decoding.process import DEFAULT_MEMORY_BYTES, ReadTimeout
from videofeatures.decoding.skipping import CONTAINERS, DECODERS
from videofeatures.decoding.view import View
from videofeatures.decoding.worker_pool import WorkerPool
from videofeatures.source import Source

LIBAV_VERSION = "8.1.2"
FFMPEG_VERSION = "n9.0.2-17-g2a571b6068-20260930"
"""Versions that were compared: libav's as PyAV ships it, and that of ffmpeg's program, which
imageio-ffmpeg ships for Linux on x86-64."""

MAX_FILE_BYTES = 16 << 20
"""Of a short video, the packets of which are all held in memory: 10 s of 1080p have 4 to 8."""

PIXEL_FORMATS = ("yuv420p", "yuv420p10le")
"""Those that nearly all videos have. Of others, nothing was compared but what tests have."""


@dataclass(frozen=True)
class Outcome:
    """What has become of a video.

    Attributes:
        problem: why it is left to ffmpeg, whatever has been sent of it; None if it is complete.
        facts: of its packets; None where they were not read.
        num_packets: of its pictures: of each that is decoded, one comes.
    """

    problem: str | None
    facts: PacketFacts | None
    num_packets: int = 0


def is_known_ffmpeg() -> bool:
    """Return whether the ffmpeg that is asked for gives what libav's libraries do.

    Raises:
        UserError: there is none that runs.
    """
    if os.environ.get("IMAGEIO_FFMPEG_EXE"):  # its own frames are wanted
        return False
    return _shipped_version() == FFMPEG_VERSION


@cache
def _shipped_version() -> str:
    return ffmpeg_version()


def may_be_simple(
    source: Source, metadata: VideoMetadata, views: Sequence[View], file_bytes: int
) -> bool:
    """Return whether a source is worth a try, by all that is known before its packets are read."""
    return (
        file_bytes <= MAX_FILE_BYTES
        and not source.is_part
        and all(view.constant_rate is not None for view in views)
        and metadata.container in CONTAINERS
        and metadata.codec in DECODERS
        and metadata.pixel_format in PIXEL_FORMATS
        and metadata.display_matrix is None
        and is_known_ffmpeg()
    )


class ShortVideos(WorkerPool):
    """Has workers decode, for several threads at a time."""

    def __init__(
        self,
        read_timeout: ReadTimeout,
        *,
        local_files_only: bool = True,
        memory_bytes: int | None = DEFAULT_MEMORY_BYTES,
    ):
        """Start nothing yet.

        Args:
            read_timeout, local_files_only, memory_bytes: see `WorkerPool`.
        """
        super().__init__(
            read_timeout,
            local_files_only=local_files_only,
            memory_bytes=memory_bytes,
            extra_niceness=EXTRA_NICENESS,
            pipe_bytes=PIPE_BYTES,
        )

    def frames(
        self,
        path: str,
        samplings: Sequence[Sampling],
        frame_rates: Sequence[float],
        *,
        num_threads: int = 1,
    ) -> Generator[tuple[int, np.ndarray], None, Outcome]:
        """Yield the frames of a video, each with the number of its sampling, as `iter_frames` does;
        return what has become of it.

        Args:
            samplings: all of a constant rate.
            frame_rates: for which packets are to be skipped; none where nothing is.
            num_threads: threads of the decoder; no more than `MAX_THREADS` are used.

        Raises:
            as `WorkerPool.call` does.
        """
        places_of = group_sent(samplings)
        places = list(places_of.values())
        sizes = [sampling.resizing.sent_size for sampling in places_of]
        frames = self.stream(
            "decode_at_once",
            _parse_outcome,
            [(height, width, 3) for width, height in sizes],
            **self.file_arguments(path),
            chains=[filters_at_rate(sampling) for sampling in places_of],
            frame_rates=frame_rates,
            num_threads=min(num_threads, MAX_THREADS),
        )
        with contextlib.closing(frames):
            while True:
                try:
                    number, frame = next(frames)
                except StopIteration as end:
                    outcome: Outcome = end.value
                    return outcome
                for place in places[number]:
                    yield place, samplings[place].resizing.finish(frame)


def _parse_outcome(value: Any) -> Outcome:
    facts = value["facts"]
    return Outcome(**value | {"facts": None if facts is None else PacketFacts(**facts)})

"""The decoder that is ffmpeg: its program makes the frames, and its libraries say the rest."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator

import numpy as np

from videofeatures.decoding.decoder import Decoder, VideoMetadata
from videofeatures.decoding.ffmpeg import PLAYLIST, explain_failure, ffmpeg_version, find_cause
from videofeatures.decoding.frames import iter_frames, resized_size
from videofeatures.decoding.libav import Libav
from videofeatures.decoding.process import ReadTimeout
from videofeatures.decoding.view import View
from videofeatures.decoding.worker_pool import LibavError
from videofeatures.errors import VideoError
from videofeatures.settings import Settings
from videofeatures.source import Source


class FfmpegDecoder(Decoder):
    """Decodes files by ffmpeg, a process for each.

    As a context manager, the processes that it keeps are ended when it is left; without, they end
    with it, or with this process.
    """

    def __init__(
        self, settings: Settings, *, num_threads: int = 1, stopped: threading.Event | None = None
    ):
        """Start nothing yet.

        Args:
            num_threads: of each ffmpeg process.
            stopped: ends every wait, within about a second, when it is set.
        """
        self._settings = settings
        self._num_threads = num_threads
        self._read_timeout = ReadTimeout(settings.decode_timeout_seconds, stopped)
        self._libav = Libav(self._read_timeout, local_files_only=settings.local_files_only)

    def __enter__(self) -> FfmpegDecoder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes that wait for the next source."""
        self._libav.close()

    def version(self) -> str:
        return ffmpeg_version()

    def probe(self, source: Source) -> VideoMetadata:
        try:
            metadata = self._libav.probe_video(source.path)
        except LibavError as error:
            general, lines = error.reason, self._explain_failure(source)
        else:
            if metadata is not None:
                return metadata
            reason = "no frame of the video can be decoded"
            raise VideoError(reason, self._explain_failure(source))
        # libav's error is a general one; ffmpeg, which logs, knows more.
        cause = find_cause(lines)
        if cause in (None, PLAYLIST, general):
            raise VideoError(cause or general, lines)
        raise VideoError(f"{general}: {cause}", lines)

    def frames(
        self, source: Source, metadata: VideoMetadata, view: View, messages: deque[str]
    ) -> Generator[np.ndarray, None, None]:
        settings = self._settings
        packet_filter = None
        if settings.skip_unused:
            packet_filter = self._libav.skip_filter(source.path, view.frame_rate)
        yield from iter_frames(
            source.path,
            resized_size(metadata, view),
            frame_rate=view.frame_rate,
            crop_size=view.crop_size,
            interpolation=view.interpolation,
            hwaccel=settings.hwaccel,
            packet_filter=packet_filter,
            num_threads=self._num_threads,
            local_files_only=settings.local_files_only,
            read_timeout=self._read_timeout,
            stderr_lines=messages,
        )

    def find_truncation(
        self, source: Source, metadata: VideoMetadata, view: View, num_frames: int
    ) -> str | None:
        return self._libav.find_truncation(source.path, metadata, num_frames, view.frame_rate)

    def _explain_failure(self, source: Source) -> list[str]:
        return explain_failure(
            source.path,
            local_files_only=self._settings.local_files_only,
            stopped=self._read_timeout.stopped,
        )

"""The decoder that is ffmpeg: its program makes the frames, and its libraries say the rest."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Generator, Iterator
from functools import cache, partial

import numpy as np

from videofeatures.decoding import content
from videofeatures.decoding.bounds import (
    PacketFacts,
    check_length,
    check_shape,
    is_questionable,
    unquestioned_seconds,
)
from videofeatures.decoding.decoder import Damage, Decoder, VideoMetadata
from videofeatures.decoding.ffmpeg import (
    NO_VIDEO,
    PLAYLIST,
    explain_failure,
    ffmpeg_version,
    find_cause,
)
from videofeatures.decoding.formats import literal_path
from videofeatures.decoding.frames import iter_frames, resized_size
from videofeatures.decoding.libav import Libav
from videofeatures.decoding.process import MemoryLimitError, ReadTimeout
from videofeatures.decoding.tally import Tally
from videofeatures.decoding.view import View
from videofeatures.decoding.worker_pool import LibavError
from videofeatures.errors import MachineError, VideoError, reading_error
from videofeatures.files import stat_or_none
from videofeatures.settings import Settings
from videofeatures.source import Source

ENCRYPTED = "encrypted: its pictures cannot be decoded without a key. Decrypt it first"


class FfmpegDecoder(Decoder):
    """Decodes files by ffmpeg, a process for each.

    As a context manager, the processes that it keeps are ended when it is left; without, they end
    with it, or with this process.
    """

    def __init__(self, settings: Settings, *, stopped: threading.Event | None = None):
        """Start nothing yet.

        Args:
            stopped: ends every wait, within about a second, when it is set.
        """
        self._settings = settings
        self._read_timeout = ReadTimeout(settings.decode_timeout_seconds, stopped)
        self._memory_bytes = settings.decoder_memory_mb << 20
        self._libav = Libav(
            self._read_timeout,
            local_files_only=settings.local_files_only,
            memory_bytes=self._memory_bytes,
        )

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
            if self._libav.look_at_packets(source.path).is_encrypted:
                raise VideoError(ENCRYPTED)
            general = "no frame of the video can be decoded"
            raise VideoError(_join(_describe(source), general), self._explain_failure(source))
        # libav's error is a general one; ffmpeg, which logs, knows more.
        cause, kind = find_cause(lines), _describe(source)
        if cause == PLAYLIST:
            raise VideoError(PLAYLIST if kind in (None, content.PLAYLIST) else kind, lines)
        if cause == general:
            cause = None
        raise VideoError(cause if cause == NO_VIDEO else _join(kind, general, cause), lines)

    def frames(
        self,
        source: Source,
        metadata: VideoMetadata,
        view: View,
        messages: deque[str],
        damage: Damage,
        *,
        num_threads: int = 1,
    ) -> Generator[np.ndarray, None, None]:
        @cache
        def look() -> PacketFacts:
            with _changes_told(source):
                return self._libav.look_at_packets(source.path)

        check = partial(
            check_length, metadata=metadata, max_still_seconds=self._settings.max_still_seconds
        )
        with _changes_told(source):
            limit_seconds = unquestioned_seconds(metadata, _file_bytes(source))
        tally = Tally()
        seconds = 0.0
        try:
            frames = self._iter_frames(source, metadata, view, messages, tally, num_threads)
            for number, frame in enumerate(frames, start=1):
                seconds = number / view.frame_rate
                if seconds > limit_seconds:
                    limit_seconds = check(seconds, facts=look())
                yield frame
        except MemoryLimitError:
            check(seconds, facts=look())  # it may be for these that it takes so much
            raise
        if is_questionable(metadata, tally.num_packets, seconds):
            check(seconds, facts=look())
        damage.num_damaged_frames = tally.num_corrupt + tally.num_errors
        if tally.num_frames is not None:
            damage.num_frames = tally.num_frames + tally.num_errors
        if (damage.num_damaged_frames or messages) and look().is_encrypted:
            raise VideoError(ENCRYPTED, messages)

    def _iter_frames(
        self,
        source: Source,
        metadata: VideoMetadata,
        view: View,
        messages: deque[str],
        tally: Tally,
        num_threads: int,
    ) -> Iterator[np.ndarray]:
        settings = self._settings
        size, crop_size = resized_size(metadata, view), view.crop_size
        shape = (crop_size, crop_size) if crop_size else size
        check_shape(shape, metadata, settings.max_aspect_ratio)
        packet_filter = None
        if settings.skip_unused:
            with _changes_told(source):
                packet_filter = self._libav.skip_filter(source.path, view.frame_rate)
        with _changes_told(source), self._literal_path(source) as path:
            yield from iter_frames(
                path,
                size,
                frame_rate=view.frame_rate,
                crop_size=crop_size,
                interpolation=view.interpolation,
                hwaccel=settings.hwaccel,
                packet_filter=packet_filter,
                num_threads=num_threads,
                local_files_only=settings.local_files_only,
                read_timeout=self._read_timeout,
                stderr_lines=messages,
                memory_bytes=self._memory_bytes,
                tally=tally,
            )

    def find_truncation(
        self, source: Source, metadata: VideoMetadata, view: View, num_frames: int
    ) -> str | None:
        with _changes_told(source):
            return self._libav.find_truncation(source.path, metadata, num_frames, view.frame_rate)

    def _explain_failure(self, source: Source) -> list[str]:
        with self._literal_path(source) as path:
            return explain_failure(
                path,
                local_files_only=self._settings.local_files_only,
                stopped=self._read_timeout.stopped,
            )

    @contextlib.contextmanager
    def _literal_path(self, source: Source) -> Iterator[str]:
        with contextlib.ExitStack() as stack:
            try:
                path = stack.enter_context(literal_path(source.path))
            except OSError as error:
                raise VideoError(error.strerror or str(error)) from None
            yield path


@contextlib.contextmanager
def _changes_told(source: Source) -> Iterator[None]:
    """Say of a file that could be read before, and cannot any more, that it was changed."""
    try:
        yield
    except VideoError as error:
        file = stat_or_none(source.path)
        is_whole = file is not None and file.st_size and not isinstance(error, LibavError)
        if is_whole or isinstance(error, MachineError):
            raise
        what = "removed" if file is None else "changed"
        reason = f"the file was {what} while it was read: {error.reason}"
        raise VideoError(reason, error.ffmpeg_lines) from None


def _join(*parts: str | None) -> str:
    return ": ".join(filter(None, parts))


def _describe(source: Source) -> str | None:
    """Return what a file seems to be that is no video; None if there is no telling."""
    try:
        return content.describe_content(source.path)
    except OSError:
        return None


def _file_bytes(source: Source) -> int:
    try:
        return os.path.getsize(source.path)
    except OSError as error:
        raise reading_error(error) from None

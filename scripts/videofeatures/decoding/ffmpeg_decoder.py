"""The decoder that is ffmpeg: its program makes the frames, and its libraries say the rest."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from functools import cache, partial
from itertools import chain, pairwise

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
from videofeatures.decoding.frames import iter_frames, resizing_of
from videofeatures.decoding.libav import Libav
from videofeatures.decoding.parts import Cut, check_start, explain_nothing, find_missing_end
from videofeatures.decoding.process import MemoryLimitError, ReadTimeout
from videofeatures.decoding.spread import iter_spread_frames, spread_indices
from videofeatures.decoding.tally import Tally
from videofeatures.decoding.times import FrameTimes, complete_times
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
        times: FrameTimes,
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
        check_start(source, metadata.duration_seconds)
        tally = Tally()
        rate, offset = view.constant_rate, source.offset_seconds
        number, seconds = 0, 0.0  # of the part
        try:
            frames = self._iter_frames(
                source, metadata, view, messages, tally, num_threads, look=look
            )
            for number, frame in enumerate(frames, start=1):
                # ffmpeg's word of a time may come before its frame, or after.
                seconds = tally.reached_seconds if rate is None else view.reached_seconds(number)
                times.reached_seconds = seconds
                if offset + seconds > limit_seconds:
                    limit_seconds = check(offset + seconds, facts=look())
                yield frame
        except MemoryLimitError:
            check(offset + seconds, facts=look())  # it may be for these that it takes so much
            raise
        if source.is_part and not number:
            if view.keyframes_only:
                raise VideoError("the part has no key frame: see `keyframes_only`", messages)
            raise VideoError(explain_nothing(source, metadata.duration_seconds), messages)
        if rate is None:
            _fill_times(times, tally, source.seconds_of(metadata.duration_seconds), metadata, view)
            if len(times.starts) != number:
                raise VideoError(
                    f"ffmpeg gave {number:,} frames, and the times of {len(times.starts):,}"
                )
            seconds = times.reached_seconds
            if offset + seconds > limit_seconds:
                check(offset + seconds, facts=look())
        # A part that has an end is no longer than the CSV says.
        has_end = source.end_seconds is not None
        if not has_end and is_questionable(metadata, tally.num_packets, seconds):
            check(offset + seconds, facts=look())
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
        *,
        look: Callable[[], PacketFacts],
    ) -> Iterator[np.ndarray]:
        settings, rate = self._settings, view.constant_rate
        resizing = resizing_of(metadata, view)
        shape = resizing.network_size
        check_shape(shape, metadata, settings.max_aspect_ratio)
        packet_filter = cut = None
        read_timeout = self._read_timeout
        if source.is_part:  # packets to skip are counted from the start of a file
            with _changes_told(source):
                cut = Cut(source, self._libav.find_landing(source.path, source.offset_seconds))
            if read_timeout.timeout_seconds is not None:
                # Nothing comes before it starts: ffmpeg has the time to play what is skipped.
                seconds = read_timeout.timeout_seconds + cut.skipped_seconds
                read_timeout = read_timeout._replace(timeout_seconds=seconds)
        elif settings.skip_unused and rate is not None:
            with _changes_told(source):
                packet_filter = self._libav.skip_filter(source.path, rate)
        with _changes_told(source), self._literal_path(source) as path:
            read = partial(
                iter_frames,
                path,
                resizing,
                frame_rate="native" if rate is None else rate,
                frame_step=view.frame_step,
                keyframes_only=view.keyframes_only,
                hwaccel=settings.hwaccel,
                packet_filter=packet_filter,
                cut=cut,
                average_fps=metadata.average_fps,
                num_threads=num_threads,
                local_files_only=settings.local_files_only,
                read_timeout=read_timeout,
                stderr_lines=messages,
                memory_bytes=self._memory_bytes,
                tally=tally,
            )
            if view.num_frames is None:
                yield from read()
            else:
                yield from iter_spread_frames(
                    lambda select: read(select=select),
                    view.num_frames,
                    self._guess_frames(source, metadata, look),
                    tally,
                    messages,
                    frame_bytes=3 * shape[0] * shape[1],
                )
        if cut is not None:
            cut.remove_expected(messages)

    @staticmethod
    def _guess_frames(
        source: Source, metadata: VideoMetadata, look: Callable[[], PacketFacts]
    ) -> int:
        """Return how many frames of its own a source seems to have."""
        if source.is_part and metadata.average_fps:
            seconds = source.seconds_of(metadata.duration_seconds)
            if seconds is not None:
                return max(1, round(seconds * metadata.average_fps))
        facts = look()
        return facts.num_packets - facts.num_discarded

    def find_truncation(
        self, source: Source, metadata: VideoMetadata, view: View, decoded_seconds: float
    ) -> str | None:
        # ffmpeg's filter rounds to the nearest frame; those that were left out follow the last one.
        rate = view.constant_rate
        rounding_seconds = (view.frame_step - 0.5) / rate if rate else 0.0
        decoded_seconds += source.offset_seconds
        reason = find_missing_end(
            source, metadata.duration_seconds, decoded_seconds, rounding_seconds
        )
        if reason is not None:
            return reason
        with _changes_told(source):
            return self._libav.find_truncation(
                source.path,
                metadata,
                decoded_seconds,
                rounding_seconds=rounding_seconds,
                keyframes_only=view.keyframes_only,
                end_seconds=source.end_seconds,
            )

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


def _fill_times(
    times: FrameTimes,
    tally: Tally,
    source_seconds: float | None,
    metadata: VideoMetadata,
    view: View,
) -> None:
    """Fill in when the frames are shown that came, of a view without a constant rate.

    Args:
        source_seconds: how long the source lasts; None if it is not known.
    """
    seconds = tally.shown_seconds
    starts, ends = complete_times(
        seconds,
        fps=metadata.average_fps,
        # A key frame stands for those after it.
        until_seconds=source_seconds if view.keyframes_only else None,
    )
    if view.num_frames is not None:
        taken = spread_indices(view.num_frames, len(seconds))
    else:
        graphs = pairwise([*tally.graph_starts, len(seconds)])
        steps = [range(first, last, view.frame_step) for first, last in graphs]
        taken = np.fromiter(chain.from_iterable(steps), np.int64)
    times.starts, times.ends = starts[taken], ends[taken]
    # Of a key frame's end nothing was decoded.
    times.reached_seconds = float((starts if view.keyframes_only else ends)[-1])


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

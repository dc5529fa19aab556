"""The decoder that is ffmpeg: its program makes the frames, and its libraries say the rest."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
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
from videofeatures.decoding.decoder import Damage, Decoder, StartAnew, VideoMetadata
from videofeatures.decoding.ffmpeg import (
    NO_VIDEO,
    PLAYLIST,
    can_chain_graphs,
    explain_failure,
    ffmpeg_version,
    find_cause,
)
from videofeatures.decoding.formats import literal_path
from videofeatures.decoding.frames import Sampling, iter_frames, resizing_of
from videofeatures.decoding.hwaccel import Accelerator, open_accelerator
from videofeatures.decoding.libav import Libav
from videofeatures.decoding.looks import Looks
from videofeatures.decoding.parts import Cut, check_start, explain_nothing, find_missing_end
from videofeatures.decoding.process import MemoryLimitError, NoAnswerError, ReadTimeout
from videofeatures.decoding.short_videos import Outcome, ShortVideos, may_be_simple
from videofeatures.decoding.skipping import rates_to_skip_for
from videofeatures.decoding.spread import iter_spread_frames, spread_indices
from videofeatures.decoding.tally import Tally
from videofeatures.decoding.times import FrameTimes, complete_times
from videofeatures.decoding.told import Told
from videofeatures.decoding.truncation import explain_end, is_short
from videofeatures.decoding.view import View
from videofeatures.decoding.worker_pool import LibavError
from videofeatures.errors import MachineError, VideoError, reading_error
from videofeatures.files import stat_or_none
from videofeatures.settings import Settings
from videofeatures.source import Source

logger = logging.getLogger(__name__)

MIN_FRAMES_TOGETHER = 2
"""That a view is to have by the header of a video, to be decoded together with others."""

ENCRYPTED = "encrypted: its pictures cannot be decoded without a key. Decrypt it first"


class FfmpegDecoder(Decoder):
    """Decodes files by ffmpeg, a process for each.

    As a context manager, the processes that it keeps are ended when it is left; without, they end
    with it, or with this process.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        stopped: threading.Event | None = None,
        accelerator: Accelerator | None = None,
    ):
        """Start nothing yet.

        Args:
            stopped: ends every wait, within about a second, when it is set.
            accelerator: decodes what it can; one of the kind that is set by default.
        """
        self._settings = settings
        self._accelerator = accelerator or open_accelerator(settings.hwaccel, stopped=stopped)
        self._read_timeout = ReadTimeout(settings.decode_timeout_seconds, stopped)
        self._memory_bytes = settings.decoder_memory_mb << 20
        self._libav = Libav(
            self._read_timeout,
            local_files_only=settings.local_files_only,
            memory_bytes=self._memory_bytes,
        )
        self._looks = Looks(self._libav)
        self._short_videos = ShortVideos(
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
        self._short_videos.close()

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
            if self._looks.at(source).is_encrypted:
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

    def check_view(self, metadata: VideoMetadata, view: View) -> None:
        shape = resizing_of(metadata, view).network_size
        check_shape(shape, metadata, self._settings.max_aspect_ratio)

    def frames(
        self,
        source: Source,
        metadata: VideoMetadata,
        views: Sequence[View],
        told: Sequence[Told],
        *,
        num_threads: int = 1,
    ) -> Generator[tuple[int, np.ndarray], None, None]:
        for view in views:
            self.check_view(metadata, view)
        runs = _plan_runs(views, source.seconds_of(metadata.duration_seconds))
        for places in runs:
            try:
                for number, frame in self._run(
                    source,
                    metadata,
                    [views[place] for place in places],
                    [told[place] for place in places],
                    num_threads=num_threads,
                ):
                    yield places[number], frame
            except StartAnew:
                raise
            except VideoError as error:
                if len(runs) == 1:
                    raise
                for place in places:
                    told[place].error = error

    def _run(
        self,
        source: Source,
        metadata: VideoMetadata,
        views: Sequence[View],
        told: Sequence[Told],
        *,
        num_threads: int,
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the frames of views that are decoded together, each with the number of its view."""

        @cache
        def look() -> PacketFacts:
            with _changes_told(source):
                return self._looks.at(source)

        check = partial(
            check_length, metadata=metadata, max_still_seconds=self._settings.max_still_seconds
        )
        with _changes_told(source):
            file_bytes = _file_bytes(source)
        limit_seconds = unquestioned_seconds(metadata, file_bytes)
        check_start(source, metadata.duration_seconds)
        messages, damage = told[0].messages, told[0].damage
        for each in told[1:]:
            each.messages, each.damage = messages, damage
        tally, offset = Tally(), source.offset_seconds
        nums_frames, seconds = [0] * len(views), 0.0  # of the part
        try:
            program = partial(
                self._iter_frames,
                source,
                metadata,
                views,
                messages,
                damage,
                tally,
                num_threads,
                look=look,
            )
            frames = self._choose(
                source, metadata, views, messages, tally, num_threads, file_bytes, program
            )
            for number, frame in frames:
                nums_frames[number] += 1
                # ffmpeg's word of a time may come before its frame, or after.
                reached = (
                    tally.reached_seconds
                    if views[number].constant_rate is None
                    else views[number].reached_seconds(nums_frames[number])
                )
                told[number].times.reached_seconds = reached
                seconds = max(seconds, reached)
                if offset + seconds > limit_seconds:
                    limit_seconds = check(offset + seconds, facts=look())
                yield number, frame
        except MemoryLimitError:
            check(offset + seconds, facts=look())  # it may be for these that it takes so much
            raise
        except (MachineError, NoAnswerError, StartAnew):
            raise
        except VideoError as error:
            if _is_encrypted(look):
                raise VideoError(ENCRYPTED, error.ffmpeg_lines) from None
            raise
        source_seconds = source.seconds_of(metadata.duration_seconds)
        for view, num_frames, each in zip(views, nums_frames, told, strict=True):
            if source.is_part and not num_frames:
                if view.keyframes_only:
                    raise VideoError("the part has no key frame: see `keyframes_only`", messages)
                raise VideoError(explain_nothing(source, metadata.duration_seconds), messages)
            if view.constant_rate is None:
                _fill_times(each.times, tally, source_seconds, metadata, view)
                if len(each.times.starts) != num_frames:
                    raise VideoError(
                        f"ffmpeg gave {num_frames:,} frames, and the times of "
                        f"{len(each.times.starts):,}"
                    )
                seconds = max(seconds, each.times.reached_seconds)
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

    def _choose(
        self,
        source: Source,
        metadata: VideoMetadata,
        views: Sequence[View],
        messages: deque[str],
        tally: Tally,
        num_threads: int,
        file_bytes: int,
        program: Callable[[str | None], Generator[tuple[int, np.ndarray], None, None]],
    ) -> Generator[tuple[int, np.ndarray], None, None]:
        """Yield frames by the cheapest way that gives these.

        Args:
            program: has ffmpeg's program decode, given its filter of packets.

        Raises:
            StartAnew: something speaks against that one.
        """
        rates = self._rates_to_skip_for(source, metadata, views)
        if (
            self._accelerator.kind == "none"
            and may_be_simple(source, metadata, views, file_bytes)
            and not self._looks.has_complained(source)
        ):
            at_once = self._decode_at_once(source, metadata, views, rates, tally, num_threads)
            yield from self._until_complaint(at_once, source, messages, tally)
            if tally.num_frames is not None:  # it is complete
                return
        packet_filter = self._plan_skipping(source, rates)
        frames = program(packet_filter)
        if packet_filter is not None:
            frames = self._until_complaint(frames, source, messages, tally)
        yield from frames

    def _decode_at_once(
        self,
        source: Source,
        metadata: VideoMetadata,
        views: Sequence[View],
        rates: Sequence[float] | None,
        tally: Tally,
        num_threads: int,
    ) -> Generator[tuple[int, np.ndarray], None, None]:
        """Yield the frames of a short video; the tally has counts if they are complete.

        Raises:
            VideoError: they do not count.
        """
        has_begun = False
        frames = self._short_videos.frames(
            source.path, _samplings(metadata, views), rates or (), num_threads=num_threads
        )
        with contextlib.closing(frames):
            while True:
                try:
                    frame = next(frames)
                except StopIteration as end:
                    outcome: Outcome = end.value
                    break
                has_begun = True
                yield frame
        if outcome.facts is not None:
            self._looks.note(source, rates or (), outcome.facts)
        if outcome.problem is None:
            tally.num_packets = tally.num_frames = outcome.num_packets
        elif has_begun:
            raise VideoError(outcome.problem)
        else:
            logger.debug("%s: left to ffmpeg: %s", source, outcome.problem)

    def _rates_to_skip_for(
        self, source: Source, metadata: VideoMetadata, views: Sequence[View]
    ) -> Sequence[float] | None:
        """Return the rates for which packets are skipped; None for all packets."""
        if not self._settings.skip_unused or source.is_part:  # packets are counted from the start
            return None
        return rates_to_skip_for(metadata, [view.constant_rate for view in views])

    def _plan_skipping(self, source: Source, rates: Sequence[float] | None) -> str | None:
        """Return the filter of packets that no frame that is taken needs; None for all packets.

        Args:
            rates: of `_rates_to_skip_for`.
        """
        # ffmpeg takes such a filter from version 7 on, and chained graphs from 7.1 on.
        if rates is None or not can_chain_graphs(self._read_timeout.stopped):
            return None
        with _changes_told(source):
            if self._looks.has_complained(source):
                return None
            facts = self._looks.at(source, rates)
        # ffmpeg is going to complain of a file that was cut off in a packet.
        return None if explain_end(facts, math.inf) else facts.packet_filter

    def _until_complaint(
        self,
        frames: Generator[tuple[int, np.ndarray], None, None],
        source: Source,
        messages: deque[str],
        tally: Tally,
    ) -> Generator[tuple[int, np.ndarray], None, None]:
        """Yield frames of which packets were left out, as long as nothing speaks against it.

        What a decoder makes up for what is damaged depends on the frames around.

        Raises:
            StartAnew: something does.
        """
        why = None
        try:
            with contextlib.closing(frames):  # ends ffmpeg
                for frame in frames:
                    if messages or tally.num_corrupt:
                        break
                    yield frame
        except (MachineError, MemoryLimitError, NoAnswerError):  # it would be the same
            raise
        except VideoError as error:
            why = error.reason
        if messages or tally.num_corrupt or tally.num_errors:
            why = messages[0] if messages else "frames are damaged"
        if why is not None:
            self._looks.note_complaint(source)
            logger.info("%s: decoded again, with nothing left out: %s", source, why)
            raise StartAnew("decoded again, with nothing left out", messages)

    def _iter_frames(
        self,
        source: Source,
        metadata: VideoMetadata,
        views: Sequence[View],
        messages: deque[str],
        damage: Damage,
        tally: Tally,
        num_threads: int,
        packet_filter: str | None,
        *,
        look: Callable[[], PacketFacts],
    ) -> Generator[tuple[int, np.ndarray], None, None]:
        settings = self._settings
        cut = None
        read_timeout = self._read_timeout
        if source.is_part:
            with _changes_told(source):
                cut = Cut(source, self._libav.find_landing(source.path, source.offset_seconds))
            if read_timeout.timeout_seconds is not None:
                # Nothing comes before it starts: ffmpeg has the time to play what is skipped.
                seconds = read_timeout.timeout_seconds + cut.skipped_seconds
                read_timeout = read_timeout._replace(timeout_seconds=seconds)
        samplings = _samplings(metadata, views)
        with _changes_told(source), self._literal_path(source) as path:
            read = partial(
                iter_frames,
                path,
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

            def frames(given: Sequence[Sampling]) -> Iterator[tuple[int, np.ndarray]]:
                return self._accelerator.frames(
                    partial(read, given), metadata, tally, messages, damage
                )

            if (num_frames := views[0].num_frames) is None:
                yield from frames(samplings)
            else:
                (sampling,) = samplings
                width, height = sampling.resizing.network_size
                spread = iter_spread_frames(
                    lambda select: (
                        frame for _, frame in frames([replace(sampling, select=select)])
                    ),
                    num_frames,
                    self._guess_frames(source, metadata, look),
                    tally,
                    messages,
                    frame_bytes=3 * width * height,
                )
                yield from ((0, frame) for frame in spread)
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
        end = source.end_seconds
        if not is_short(metadata.duration_seconds, decoded_seconds + rounding_seconds, end):
            return None
        with _changes_told(source):
            return explain_end(
                self._looks.at(source),
                decoded_seconds,
                rounding_seconds=rounding_seconds,
                keyframes_only=view.keyframes_only,
                end_seconds=end,
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


def _is_encrypted(look: Callable[[], PacketFacts]) -> bool:
    """Whether some packets are encrypted; False where they cannot be read."""
    try:
        return look().is_encrypted
    except VideoError:
        return False


def _samplings(metadata: VideoMetadata, views: Sequence[View]) -> list[Sampling]:
    return [
        Sampling(
            resizing=resizing_of(metadata, view),
            frame_rate="native" if view.constant_rate is None else view.constant_rate,
            frame_step=view.frame_step,
            keyframes_only=view.keyframes_only,
        )
        for view in views
    ]


def _plan_runs(views: Sequence[View], source_seconds: float | None) -> list[list[int]]:
    """Return which views are decoded together, by their numbers: all those for which ffmpeg decodes
    the same, in one run.

    Key frames alone are decoded quickly, and of frames that are spread evenly it is known at the
    end alone whether they are the right ones. A source that may be too short for a frame of some
    view is decoded for that one by itself: it is quick, too, and ffmpeg is asked again then.
    """
    together: list[int] = []
    alone: list[list[int]] = []
    for number, view in enumerate(views):
        rate = view.constant_rate
        is_other = view.num_frames is not None or view.keyframes_only
        is_short = rate is not None and (source_seconds or 0) * rate < MIN_FRAMES_TOGETHER
        if is_other or is_short:
            alone.append([number])
        else:
            together.append(number)
    return [together, *alone] if together else alone


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

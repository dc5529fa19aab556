"""One source, decoded once: what each feature of each of its views sees."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Generator, Iterator

import numpy as np

from videofeatures.decoding.clips import ClipCutter
from videofeatures.decoding.decoder import Damage, Decoder, StartAnew, VideoMetadata
from videofeatures.decoding.times import FrameTimes, RowTimes, row_times
from videofeatures.decoding.told import Told
from videofeatures.decoding.view import View
from videofeatures.errors import VideoError
from videofeatures.source import Source

MAX_DAMAGED_SHARE = 0.5
"""More, and most of what the network would see is what the decoder made up. Clips of seconds that
were cut out of a broadcast in the middle of a group of pictures have less, and so have videos
with some damaged sectors, which are done; their share is told."""


class ViewDecoding:
    """What has come of one view of a source.

    Attributes:
        view: how the source is seen.
        num_frames: that the decoder has given so far, each once.
        num_clips: that were yielded so far.
        told: what the decoder says beside the frames.
        warning: what is wrong with the source, though it was accepted; None if nothing is.
        error: why there are no more clips; None if there is no such reason.
        times: of the rows that its features will be; None before the last clip.
    """

    def __init__(self, view: View):
        self.view = view
        self.num_frames = 0
        self.num_clips = 0
        self.told = Told()
        self.warning: str | None = None
        self.error: VideoError | None = None
        self.times: RowTimes | None = None
        self._cutter = ClipCutter(view)

    @property
    def decoded_seconds(self) -> float:
        """How far the source has been decoded, from its start."""
        if self.view.constant_rate is None:
            return self.told.times.reached_seconds
        return self.view.reached_seconds(self.num_frames)

    def add(self, frame: np.ndarray) -> Iterator[np.ndarray]:
        """Take the next frame; yield the clip that it completes, if it does."""
        self.num_frames += 1
        if (clip := self._cutter.add(frame)) is not None:
            self.num_clips += 1
            yield clip

    def end(self, source: Source) -> Iterator[np.ndarray]:
        """Yield the last clips, and know the times of all."""
        for clip in self._cutter.end():
            self.num_clips += 1
            yield clip
        times = self.told.times
        if self.view.constant_rate is not None:
            times = FrameTimes.at_rate(self.num_frames, self.view)
        self.times = row_times(times, self.view).shifted(source.offset_seconds)


class Decoding:
    """One source, decoded for one view or several; used by one thread.

    What goes wrong with the source ends it for all of its views; what goes wrong with one of
    several views is in its `error`, and costs no other one.

    Attributes:
        metadata: of the source; None before it is known.
        views: what has come of each.
        is_repeated: it has been begun anew.
    """

    def __init__(
        self,
        decoder: Decoder,
        source: Source,
        *views: View,
        truncated: str = "fail",
        damaged: str = "fail",
        num_threads: int = 1,
    ):
        """Read nothing yet.

        Args:
            truncated: what to do with a source that ends before its time: `fail`, after its clips,
                or `keep` them, with a warning.
            num_threads: to decode with.
            damaged: the same of one with more than `MAX_DAMAGED_SHARE`.
        """
        self.metadata: VideoMetadata | None = None
        self.views = [ViewDecoding(view) for view in views]
        self.is_repeated = False
        self._decoder = decoder
        self._source = source
        self._truncated = truncated
        self._damaged = damaged
        self._num_threads = num_threads

    @property
    def share(self) -> float:
        """What part of the source has been decoded, as far as its header tells."""
        video_seconds = self.metadata.duration_seconds if self.metadata else None
        source_seconds = self._source.seconds_of(video_seconds)
        if not source_seconds:
            return 0.0
        return min(max(view.decoded_seconds for view in self.views) / source_seconds, 1.0)

    def clips(self) -> Generator[np.ndarray, None, None]:
        """Yield what each feature of the only view sees: see `ClipCutter`.

        Raises:
            StartAnew: see `clips_of_views`.
            VideoError: see `Decoder`; or the source is truncated, or damaged.
        """
        with contextlib.closing(self.clips_of_views()) as clips:
            for _, pixels in clips:
                yield pixels
        (view,) = self.views
        if view.error is not None:
            raise view.error

    def clips_of_views(self) -> Generator[tuple[int, np.ndarray], None, None]:
        """Yield what each feature sees, with the number of its view; those of one view in order.

        Raises:
            StartAnew: none of the clips counts. This may be called once more: then they come.
            VideoError: see `Decoder`, of what is so for all views.
        """
        try:
            yield from self._clips()
        except StartAnew:
            self.is_repeated = True
            is_any_given = any(view.num_clips for view in self.views)
            self.views = [ViewDecoding(view.view) for view in self.views]
            if is_any_given:
                raise
            yield from self._clips()

    def _clips(self) -> Iterator[tuple[int, np.ndarray]]:
        if self.metadata is None:
            self.metadata = self._decoder.probe(self._source)
        wanted: list[int] = []
        for number, view in enumerate(self.views):
            with _error_kept(view):
                self._decoder.check_view(self.metadata, view.view)
                wanted.append(number)
        if not wanted:
            return
        frames = self._decoder.frames(
            self._source,
            self.metadata,
            [self.views[number].view for number in wanted],
            [self.views[number].told for number in wanted],
            num_threads=self._num_threads,
        )
        with contextlib.closing(frames):  # ends ffmpeg, also where nobody wants more of it
            for place, frame in frames:
                number = wanted[place]
                for pixels in self.views[number].add(frame):
                    yield number, pixels
        for number in wanted:
            view = self.views[number]
            view.error = view.told.error
            if view.error is None:
                with _error_kept(view):
                    for pixels in view.end(self._source):
                        yield number, pixels
                    self._check_end(view)

    def _check_end(self, view: ViewDecoding) -> None:
        assert self.metadata is not None
        truncation = self._decoder.find_truncation(
            self._source, self.metadata, view.view, view.decoded_seconds
        )
        share = view.told.damage.share or 0.0
        damage = f"{100 * share:.0f} % of its frames are damaged"
        found = [(truncation, self._truncated)] if truncation else []
        if share > MAX_DAMAGED_SHARE:
            found.append((damage, self._damaged))
        view.warning = "; ".join(warning for warning, _ in found) or None
        if view.warning and "fail" in [choice for _, choice in found]:
            raise VideoError(view.warning, view.told.messages)

    # Of the only view, for those who have one.

    @property
    def num_frames(self) -> int:
        """Frames of the first view that the decoder has given so far."""
        return self.views[0].num_frames

    @property
    def num_clips(self) -> int:
        """Clips of the first view that were yielded so far."""
        return self.views[0].num_clips

    @property
    def messages(self) -> deque[str]:
        """The last lines that the decoder has said of the first view."""
        return self.views[0].told.messages

    @property
    def damage(self) -> Damage:
        """Of the frames of the first view, as far as it is known."""
        return self.views[0].told.damage

    @property
    def warning(self) -> str | None:
        """What is wrong with the source as the first view sees it, though it was accepted."""
        return self.views[0].warning

    @property
    def times(self) -> RowTimes | None:
        """Of the rows of the first view; None before the last clip."""
        return self.views[0].times


@contextlib.contextmanager
def _error_kept(view: ViewDecoding) -> Iterator[None]:
    try:
        yield
    except VideoError as error:
        view.error = error

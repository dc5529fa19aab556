"""Frames to what one feature sees: single frames, or clips of several."""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from collections.abc import Generator, Iterable, Iterator

import numpy as np

from videofeatures.decoding.decoder import Damage, Decoder, VideoMetadata
from videofeatures.decoding.process import NUM_STDERR_LINES
from videofeatures.decoding.times import FrameTimes, RowTimes, row_times
from videofeatures.decoding.view import View
from videofeatures.errors import VideoError
from videofeatures.source import Source

MAX_DAMAGED_SHARE = 0.5
"""More, and most of what the network would see is what the decoder made up. Clips of seconds that
were cut out of a broadcast in the middle of a group of pictures have less, and so have videos
with some damaged sectors, which are done; their share is told."""


class Decoding:
    """One source, decoded for one view; used by one thread.

    Attributes:
        metadata: of the source; None before it is known.
        num_frames: that the decoder has given so far, each once.
        num_clips: that were yielded so far.
        messages: the last lines that the decoder has said.
        damage: of the frames, as far as it is known.
        warning: what is wrong with the source, though it was accepted; None if nothing is.
        times: of the rows that its features will be; None before the last clip.
    """

    def __init__(
        self,
        decoder: Decoder,
        source: Source,
        view: View,
        *,
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
        self.num_frames = 0
        self.num_clips = 0
        self.messages: deque[str] = deque(maxlen=NUM_STDERR_LINES)
        self.damage = Damage()
        self.warning: str | None = None
        self.times: RowTimes | None = None
        self._frame_times = FrameTimes()
        self._decoder = decoder
        self._source = source
        self._view = view
        self._truncated = truncated
        self._damaged = damaged
        self._num_threads = num_threads

    @property
    def decoded_seconds(self) -> float:
        """How far the source has been decoded, from its start."""
        if self._view.constant_rate is None:
            return self._frame_times.reached_seconds
        return self._view.reached_seconds(self.num_frames)

    @property
    def share(self) -> float:
        """What part of the source has been decoded, as far as its header tells."""
        video_seconds = self.metadata.duration_seconds if self.metadata else None
        source_seconds = self._source.seconds_of(video_seconds)
        if not source_seconds:
            return 0.0
        return min(self.decoded_seconds / source_seconds, 1.0)

    def clips(self) -> Generator[np.ndarray, None, None]:
        """Yield what each feature sees: see `iter_clips`.

        Raises:
            VideoError: see `Decoder`; or the source is truncated, or damaged.
        """
        self.metadata = self._decoder.probe(self._source)
        frames = self._decoder.frames(
            self._source,
            self.metadata,
            self._view,
            self.messages,
            self.damage,
            self._frame_times,
            num_threads=self._num_threads,
        )
        with contextlib.closing(frames):  # ends ffmpeg, also where nobody wants more of it
            for pixels in iter_clips(self._counted(frames), self._view):
                self.num_clips += 1
                yield pixels
        if self._view.constant_rate is not None:
            self._frame_times = FrameTimes.at_rate(self.num_frames, self._view)
        times = row_times(self._frame_times, self._view)
        self.times = times.shifted(self._source.offset_seconds)
        truncation = self._decoder.find_truncation(
            self._source, self.metadata, self._view, self.decoded_seconds
        )
        share = self.damage.share or 0.0
        damage = f"{100 * share:.0f} % of its frames are damaged"
        found = [(truncation, self._truncated)] if truncation else []
        if share > MAX_DAMAGED_SHARE:
            found.append((damage, self._damaged))
        self.warning = "; ".join(warning for warning, _ in found) or None
        if self.warning and "fail" in [choice for _, choice in found]:
            raise VideoError(self.warning, self.messages)

    def _counted(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        for frame in frames:
            self.num_frames += 1
            yield frame


def iter_clips(frames: Iterable[np.ndarray], view: View) -> Iterator[np.ndarray]:
    """Cut frames into what each feature sees.

    Each frame is taken once, however many clips it is in, and no more of them are kept than one
    clip spans.

    Args:
        frames: of the whole video, each (height, width, 3), uint8.

    Yields:
        A clip (frames, height, width, 3), uint8, as soon as it is full; or, of a view without
        clips, a frame (height, width, 3). What the video does not have of the last clip is zeros
        (black), as in the original program, which pads before it subtracts the mean; or the last
        frame, for `repeat`, and for `shift`, where the video is shorter than a clip.

    Raises:
        VideoError: there is no clip, for the video is too short for one, and `last_clip` is `drop`.
    """
    windows = view.windows
    if view.num_frames_per_clip is None:
        yield from itertools.islice(frames, 0, None, windows.stride)
        return
    kept: deque[np.ndarray] = deque(maxlen=windows.span)
    unneeded = np.empty(0, np.uint8)
    num_frames, num_clips = 0, 0
    for frame in frames:
        kept.append(frame if windows.needs(num_frames) else unneeded)
        num_frames += 1
        if num_frames == num_clips * windows.stride + windows.span:
            yield np.stack([kept[k] for k in range(0, windows.span, windows.interval)])
            num_clips += 1
    for start in windows.starts(num_frames)[num_clips:]:
        first = start - (num_frames - len(kept))
        given = [kept[k] for k in range(first, len(kept), windows.interval)]
        filling = np.zeros_like(given[-1]) if view.last_clip == "zeros" else given[-1]
        yield np.stack(given + [filling] * (windows.length - len(given)))
        num_clips += 1
    if num_frames and not num_clips:
        raise VideoError(
            f"shorter than one clip: {num_frames:,} frames of {windows.span:,}. Such videos are "
            "done with another `last_clip` than drop"
        )
